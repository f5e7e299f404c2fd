"""MLLM-HWSI's "classification accuracy": one label inside the other, as its public code compares them.

Computed to be comparable with its paper and for nothing else: the constant answer "carcinoma" gets .471 of WSI-Bench,
the match is case-sensitive, and "not carcinoma" counts as carcinoma (BasitAlawode/HWSI-MLLM @68f33ac, main_test.py).
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

MatchMode = Literal["exact_label", "prediction_in_reference", "reference_in_prediction", "no_match", "fallback_exact"]
_NOUNS: Final = "classification|diagnosis|answer|label|result|finding|impression"
_VERBS: Final = (
    "is|are|was|were|shows|suggests|indicates|reveals|points to|consistent with|represents|demonstrates|supports"
)
_LEADS: Final = (
    re.compile(rf"(?:{_NOUNS})\s*(?:is|are|was|were|:)\s*(.+)$", re.IGNORECASE),
    re.compile(rf"(?:{_VERBS})\s+(.+)$", re.IGNORECASE),
)


@dataclass(frozen=True)
class LabelMatch:
    """Whether they match, how, and the labels that were compared."""

    is_match: bool
    mode: MatchMode
    answer: str
    truth: str


def match_label(answer: str, truth: str) -> LabelMatch:
    """The comparison of an answer with the truth, both free texts."""
    said, wanted = _label(answer), _label(truth)
    if not said or not wanted:
        said, wanted = _vqa(answer), _vqa(truth)
        return LabelMatch(said == wanted, "fallback_exact", said, wanted)
    mode: MatchMode = "no_match"
    if said == wanted:
        mode = "exact_label"
    elif re.search(rf"\b{re.escape(said)}\b", wanted):
        mode = "prediction_in_reference"
    elif re.search(rf"\b{re.escape(wanted)}\b", said):
        mode = "reference_in_prediction"
    return LabelMatch(mode != "no_match", mode, said, wanted)


def _label(text: str) -> str:
    """What the first clause says: behind the first noun or verb that leads to a label, up to the next sign."""
    clause = re.split(r"[.;\n]", " ".join(text.split()), maxsplit=1)[0].strip()
    led = next((found[1].strip() for found in (lead.search(clause) for lead in _LEADS) if found), clause)
    label = re.split(r"[,;:\\()]", led, maxsplit=1)[0].strip()
    return " ".join(re.sub(r"^(?:the|a|an)\s+", "", label).split())


def _vqa(text: str) -> str:
    """The first of A … E that stands as a word, else the text in lower case."""
    plain = " ".join(text.split())
    found = re.search(r"\b(?:OPTION\s*|ANSWER\s*[:\-]?\s*)?\(?([A-E])\)?\b", plain.upper())
    return found[1] if found else plain.lower()
