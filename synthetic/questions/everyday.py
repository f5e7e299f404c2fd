"""Questions as people ask them who know nothing of topics: what a newcomer types first."""

from typing import Final

import numpy as np

from synthetic.questions.question import Question, report, sentences
from synthetic.questions.topics import (
    EXTENT,
    GRADE,
    LYMPHOCYTES,
    MITOSES,
    NECROSIS,
    PATTERN,
    STAGE,
    STROMA,
    TYPING,
    Topic,
)
from synthetic.questions.unanswerable import unanswerable_question
from synthetic.slide_truth import SlideTruth

# Answered by the topic's sentence.
_BY_TOPIC: Final[tuple[tuple[Topic, tuple[str, ...]], ...]] = (
    (
        PATTERN,
        (
            "What kind of tissue is this?",
            "What tissue is this?",
            "What kind of tissue does this slide show?",
            "What sort of tissue do you see?",
            "What tissue is on the slide?",
            "What does this tissue look like?",
        ),
    ),
    (
        TYPING,
        (
            "What kind of tumour is this?",
            "What type of cancer is this?",
            "Which cancer is it?",
            "What tumour is this?",
            "What does the patient have?",
        ),
    ),
    (GRADE, ("What grade is it?", "Which grade?", "How bad do the nuclei look?", "Which grade is the tumour?")),
    (MITOSES, ("How many mitoses are there?", "How often do cells divide?", "What about the mitoses?")),
    (LYMPHOCYTES, ("How many lymphocytes are there?", "What about lymphocytes?", "How inflamed is it?")),
    (STROMA, ("What does the stroma look like?", "What about the stroma?", "How does the connective tissue look?")),
    (EXTENT, ("How much tumour is there?", "How much of the tissue is tumour?", "How large is the tumour?")),
    (NECROSIS, ("Where is the dead tissue?", "Where is necrosis?", "And where is the necrosis?")),
    (STAGE, ("What stage is it?", "Which stage?", "How advanced is it?")),
)
_EVERYTHING: Final = (
    "What do you see?",
    "What does this slide show?",
    "What is this?",
    "Describe everything you see.",
    "Describe the slide.",
    "Describe this image.",
    "What can you tell me about this slide?",
    "Tell me about this slide.",
    "Summarise what you see.",
    "Anything unusual?",
)
_MALIGNANT: Final = (
    "Is this cancer?",
    "Is it malignant?",
    "Is there a tumour?",
    "Is there cancer?",
    "Do you see a tumour?",
    "Does the patient have cancer?",
)
_BENIGN: Final = ("Is this benign?", "Is this normal tissue?", "Is it harmless?", "Is everything normal?")
_MANY: Final[tuple[tuple[Topic, str, tuple[str, ...]], ...]] = (
    (LYMPHOCYTES, "dense", ("Are there many lymphocytes?", "Is it inflamed?", "Are lymphocytes dense?")),
    (MITOSES, "frequent", ("Are there many mitoses?", "Are mitoses frequent?", "Do the cells divide a lot?")),
)


def everyday_question(truth: SlideTruth, rng: np.random.Generator) -> Question:
    """One of them, each kind about as often as the others."""
    kind = rng.random()
    if kind < 0.5:
        return _by_topic(truth, rng)
    if kind < 0.68:
        return Question("Report", "report", "free", _one(_EVERYTHING, rng), report(truth))
    if kind < 0.92:
        return _yes_no(truth, rng)
    return unanswerable_question("seen", rng)


def _by_topic(truth: SlideTruth, rng: np.random.Generator) -> Question:
    # What is asked first, and by everybody, is asked more often.
    topic, texts = _BY_TOPIC[0] if rng.random() < 0.2 else _BY_TOPIC[int(rng.integers(len(_BY_TOPIC)))]
    return Question(topic.task, topic.name, "free", _one(texts, rng), sentences([topic], truth))


def _yes_no(truth: SlideTruth, rng: np.random.Generator) -> Question:
    benign = truth.pattern == "benign"
    kind = rng.random()
    if kind < 0.5:
        asked_for_benign = rng.random() < 0.4
        text = _one(_BENIGN if asked_for_benign else _MALIGNANT, rng)
        return Question(TYPING.task, TYPING.name, "yes_no", text, "Yes" if benign == asked_for_benign else "No")
    topic, phrase, texts = _MANY[int(rng.integers(len(_MANY)))]
    answer = "Yes" if topic.phrase(truth) == phrase else "No"
    return Question(topic.task, topic.name, "yes_no", _one(texts, rng), answer)


def _one(texts: tuple[str, ...], rng: np.random.Generator) -> str:
    return texts[int(rng.integers(len(texts)))]
