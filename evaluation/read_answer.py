"""Reads an answer's statement on a topic: the words of one value, or nothing that can be counted."""

import re
from collections.abc import Iterator
from typing import Final

from synthetic.questions.topics import Topic

# A sentence of a report is about the topic whose words stand in it. They are stems, so that a model may put it freely.
_SUBJECTS: Final = {
    "pattern": r"pattern|architecture",
    "histological type": r"diagnosis|\btype",
    "grade": r"\bgrade",
    "mitoses": r"mitos|mitot",
    "lymphocytes": r"lymphocyt|inflammat|infiltrate",
    "stroma": r"strom|connective tissue",
    "tumour fraction": r"fraction|share|content|proportion",
    "location of necrosis": r"necro|dead tissue",
    "stage": r"\bstage",
    "molecular subtype": r"subtype|immune",
    "treatment": r"treat|therap|management",
    "prognosis": r"prognos|outlook|outcome",
}


def stated_phrase(topic: Topic, text: str) -> str | None:
    """The one phrase of the topic that stands in the text; None without any, and when the text contradicts itself."""
    found = {phrase for phrase in topic.phrases.values() if _states(text, phrase)}
    return found.pop() if len(found) == 1 else None


def reported_phrase(topic: Topic, report: str) -> str | None:
    """The same of a text about many topics: only sentences that name the topic count."""
    subject = re.compile(_SUBJECTS[topic.name], re.IGNORECASE)
    return stated_phrase(topic, " ".join(sentence for sentence in _sentences(report) if subject.search(sentence)))


def _states(text: str, phrase: str) -> bool:
    """Whether the phrase stands there as whole words and is not denied ("not seen" is a phrase of its own)."""
    return re.search(rf"(?<!\bnot )(?<!\bno )\b{re.escape(phrase)}\b", text, re.IGNORECASE) is not None


def _sentences(text: str) -> Iterator[str]:
    yield from re.split(r"(?<=[.!?;])\s+", text)
