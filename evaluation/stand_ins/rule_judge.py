"""A judge of the drawn world by rules: claims are sentences, and a claim is right where the other text says the same of
its topic. It stands in for a language model where none can be had, and shows whether the metrics come out as the truth
has it.
"""

import json
import re

from evaluation.judging.prompts import OURS
from evaluation.read_answer import reported_phrase
from evaluation.stand_ins.serve import Asked
from synthetic.questions.topics import TOPICS

_SCORES = frozenset({OURS.precision_scores, OURS.relevance_scores})


def rule_judge(asked: Asked) -> str:
    """The reply to one of our prompts."""
    fields = json.loads(asked.texts[0])
    if asked.system not in _SCORES:
        return json.dumps(sentences_of(fields["text"]))
    judged = [
        {"claim": claim, "explanation": "by rule", "score": claim_score(claim, fields["text"])}
        for claim in fields["claims"]
    ]
    return json.dumps(judged)


def sentences_of(text: str) -> list[str]:
    """The text cut behind full stops."""
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+", text) if part.strip()]


def claim_score(claim: str, text: str) -> int:
    """1 where the text says of the claim's topic what the claim says, else 0."""
    for topic in TOPICS:
        said = reported_phrase(topic, claim)
        if said is not None:
            return int(reported_phrase(topic, text) == said)
    return int(claim in text)
