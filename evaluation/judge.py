"""An answer beside the truth: what was wanted, what the text says, and what a look at another slide would give.

A report is judged once for each of its attributes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from evaluation.read_answer import reported_phrase, stated_phrase
from synthetic.questions.question import LETTERS, SUMMARIES, Question
from synthetic.questions.topics import ATTRIBUTES, NECROSIS, TOPICS, Topic
from synthetic.slide_truth import SlideTruth

AnswerForm = Literal["letter", "yes_no", "open", "report"]
Kind = Literal["closed", "open", "report"]
KIND_OF: Final[dict[AnswerForm, Kind]] = {"letter": "closed", "yes_no": "closed", "open": "open", "report": "report"}
KINDS: Final[tuple[Kind, ...]] = ("closed", "open", "report")
_TOPICS: Final = {topic.name: topic for topic in TOPICS}
_YES_NO: Final = ("Yes", "No")


@dataclass(frozen=True)
class Asked:
    """A question as it was put: `truth` is of the slide whose label counts, `shown` of the one that was looked at."""

    condition: str
    question: Question
    truth: SlideTruth
    shown: SlideTruth
    turn: int = 1


@dataclass(frozen=True)
class Judgement:
    """One thing that an answer had to say, `wanted`, and what it said, `given` (None where nothing can be read).

    `phrase` is `wanted` in words where that is a letter. `chance` is how likely an answer that is right for the slide
    that was shown is right for the slide whose label counts: 1 when they are the same.
    """

    asked: Asked
    topic: str
    form: AnswerForm
    wanted: str
    phrase: str
    given: str | None
    chance: float

    @property
    def is_right(self) -> bool:
        """Nothing readable is wrong."""
        return self.given == self.wanted

    @property
    def kind(self) -> Kind:
        """Letters and Yes/No are closed questions."""
        return KIND_OF[self.form]


def judge(asked: Asked, text: str) -> list[Judgement]:
    """What the answer is worth: one judgement, for a report or a description one of each attribute in it."""
    question = asked.question
    if question.form != "free":
        return [_closed(asked, text)]
    if question.topic == "never drawn":
        return [_never_drawn(asked, text)]
    if question.topic in _TOPICS:
        topic = _TOPICS[question.topic]
        return [_stated(asked, topic, "open", stated_phrase(topic, text))]
    return list(_reported(asked, text))


def reported_topics(question: Question) -> tuple[Topic, ...]:
    """What an answer to a request for a report or a description has to go through."""
    return ATTRIBUTES if question.topic == "report" else SUMMARIES[question.task]


def _reported(asked: Asked, text: str) -> Iterator[Judgement]:
    for topic in reported_topics(asked.question):
        yield _stated(asked, topic, "report", reported_phrase(topic, text))


def _stated(asked: Asked, topic: Topic, form: AnswerForm, given: str | None) -> Judgement:
    wanted = topic.phrase(asked.truth)
    chance = float(topic.phrase(asked.shown) == wanted)
    return Judgement(asked, topic.name, form, wanted, wanted, given, chance)


def _never_drawn(asked: Asked, text: str) -> Judgement:
    """That it is not seen, of the very thing that was asked for."""
    wanted = NECROSIS.phrases["none"]
    finding = asked.question.answer.split()[0]
    given = stated_phrase(NECROSIS, text) if finding.lower() in text.lower() else None
    return Judgement(asked, asked.question.topic, "open", wanted, wanted, given, 1.0)


def _closed(asked: Asked, text: str) -> Judgement:
    """Closed answers are exactly a letter, Yes or No; anything else is nothing."""
    question = asked.question
    form: AnswerForm = "letter" if question.form == "letter" else "yes_no"
    allowed = tuple(LETTERS) if form == "letter" else _YES_NO
    given = text.strip() if text.strip() in allowed else None
    phrase = question.phrase if form == "letter" else question.answer
    return Judgement(asked, question.topic, form, question.answer, phrase, given, _closed_chance(asked))


def _closed_chance(asked: Asked) -> float:
    question, truth, shown = asked.question, asked.truth, asked.shown
    if question.topic == "necrosis":
        return float((truth.necrosis is None) == (shown.necrosis is None))
    if question.topic not in _TOPICS:
        return 1.0
    seen = _TOPICS[question.topic].phrase(shown)
    if question.form == "yes_no":
        return float((seen in question.options) == (question.phrase in question.options))
    return float(seen == question.phrase) if seen in question.options else 1 / len(question.options)
