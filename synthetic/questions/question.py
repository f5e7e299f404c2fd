"""A question about a slide with its answer, drawn from the slide's truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import numpy as np

from synthetic.questions.topics import (
    ATTRIBUTES,
    EXTENT,
    GRADE,
    LYMPHOCYTES,
    MITOSES,
    NECROSIS,
    NOTHING,
    PATTERN,
    STROMA,
    TOPICS,
    TYPING,
    Task,
    Topic,
)
from synthetic.questions.wordings import FORMATS, GROUPS, NECROSIS_NAMES, NEVER_DRAWN, Wordings
from synthetic.slide_truth import SlideTruth

Form = Literal["letter", "yes_no", "free"]
LETTERS: Final = "ABCD"
SUMMARIES: Final[dict[Task, tuple[Topic, ...]]] = {
    "Global_Morphology_Description": (PATTERN, EXTENT, STROMA),
    "Key_Diagnostic_Description": (TYPING, GRADE),
    "Regional_Structure_Description": (STROMA, NECROSIS),
    "Specific_Feature_Description": (MITOSES, LYMPHOCYTES),
}
_WRONG_VALUES: Final = np.array([len(topic.phrases) - 1 for topic in TOPICS])
_SHARES: Final = _WRONG_VALUES / _WRONG_VALUES.sum()
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Question:
    """`answer` is exactly a letter or Yes/No where `form` is "letter" or "yes_no", a text where it is "free".

    `topic` is a Topic's name, "necrosis", "never drawn", "summary" or "report". Closed questions about a Topic carry
    the right `phrase` and the `options` in the order in which the text names them; Yes/No questions name one.
    """

    task: Task
    topic: str
    form: Form
    text: str
    answer: str
    phrase: str = ""
    options: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["closed", "open"]:
        """WSI-Bench's two kinds."""
        return "open" if self.form == "free" else "closed"


def letter_question(topic: Topic, truth: SlideTruth, wordings: Wordings, rng: np.random.Generator) -> Question:
    """Two to four options in random order; with more values than letters the wrong ones are drawn."""
    right = topic.phrase(truth)
    wrong = [phrase for phrase in topic.phrases.values() if phrase != right]
    options = [right, *rng.permutation(wrong)[: len(LETTERS) - 1]]
    order = rng.permutation(len(options))
    shown = [str(options[index]) for index in order]
    option, between, before = FORMATS[rng.integers(len(FORMATS))]
    listed = between.join(
        option.format(letter=letter, phrase=phrase) for letter, phrase in zip(LETTERS, shown, strict=False)
    )
    text = _one(wordings.choice, rng).format(noun=_one(topic.nouns, rng)) + before + listed
    return Question(topic.task, topic.name, "letter", text, LETTERS[shown.index(right)], right, tuple(shown))


def yes_no_question(topic: Topic, truth: SlideTruth, wordings: Wordings, rng: np.random.Generator) -> Question:
    """Names the true value in half of the cases, any other value otherwise."""
    right = topic.phrase(truth)
    yes = rng.random() < 0.5
    named = right if yes else _one([phrase for phrase in topic.phrases.values() if phrase != right], rng)
    said = f"in the {named}" if topic is NECROSIS and named != topic.phrases[NOTHING] else named
    text = _one(wordings.yes_no, rng).format(judged=_one(topic.judged, rng), phrase=said)
    return Question(topic.task, topic.name, "yes_no", text, "Yes" if yes else "No", right, (named,))


def open_question(topic: Topic, truth: SlideTruth, wordings: Wordings, rng: np.random.Generator) -> Question:
    """Answered by one sentence."""
    if topic is NECROSIS and rng.random() < 0.75:
        text = _one(wordings.place, rng).format(finding=_one(NECROSIS_NAMES, rng))
    else:
        text = _one(wordings.free, rng).format(noun=_one(topic.nouns, rng))
    return Question(topic.task, topic.name, "free", text, topic.answer(truth))


def necrosis_question(truth: SlideTruth, wordings: Wordings, rng: np.random.Generator) -> Question:
    """Whether there is any, Yes or No; now and then whether there is none."""
    asked_for_absence = rng.random() < 0.2
    frames = wordings.absence if asked_for_absence else wordings.presence
    text = _one(frames, rng).format(finding=_one(NECROSIS_NAMES, rng))
    yes = (truth.necrosis is None) == asked_for_absence
    return Question(NECROSIS.task, "necrosis", "yes_no", text, "Yes" if yes else "No")


def never_drawn_question(wordings: Wordings, rng: np.random.Generator) -> Question:
    """About something that no synthetic slide shows: asked for its place, or whether it is there."""
    finding = _one(NEVER_DRAWN, rng)
    task: Task = "Specific_Feature_Description"
    if rng.random() < 0.5:
        text = _one(wordings.presence, rng).format(finding=finding)
        return Question(task, "never drawn", "yes_no", text, "No")
    text = _one(wordings.place, rng).format(finding=finding)
    return Question(task, "never drawn", "free", text, f"{finding.capitalize()} is not seen.")


def summary_question(truth: SlideTruth, wordings: Wordings, rng: np.random.Generator) -> Question:
    """Asks for a group of attributes: WSI-Bench's four descriptions."""
    task = _one(tuple(SUMMARIES), rng)
    text = _one(wordings.summary, rng).format(group=_one(GROUPS[task], rng))
    return Question(task, "summary", "free", text, sentences(SUMMARIES[task], truth))


def report_question(truth: SlideTruth, wordings: Wordings, rng: np.random.Generator) -> Question:
    """Asks for everything."""
    return Question("Report", "report", "free", _one(wordings.report, rng), report(truth))


def report(truth: SlideTruth) -> str:
    """All attributes, a sentence each."""
    return sentences(ATTRIBUTES, truth)


def sentences(topics: Sequence[Topic], truth: SlideTruth) -> str:
    """The answers to the topics, one after the other."""
    return " ".join(topic.answer(truth) for topic in topics)


def any_topic(rng: np.random.Generator) -> Topic:
    """One of all topics; those with more values, which are harder to tell apart, more often."""
    return TOPICS[int(rng.choice(len(TOPICS), p=_SHARES))]


def _one(items: Sequence[_Item], rng: np.random.Generator) -> _Item:
    return items[int(rng.integers(len(items)))]
