"""Closed questions asked twice, freely and with their choices: whether choices cost anything in what is right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from evaluation.exam import AS_IS
from evaluation.judge import Asked, judge
from synthetic.questions.question import LETTERS
from synthetic.questions.slide_questions import slide_questions
from synthetic.questions.wordings import SEEN
from synthetic.slide_truth import slide_truth

# Points of accuracy that choices may cost.
MOST_LOST: Final = 1.0
_YES_NO: Final = ("Yes", "No")


@dataclass(frozen=True)
class ClosedPair:
    """The free answer to a question and the choice."""

    asked: Asked
    free: str
    chosen: str

    @property
    def free_is_right(self) -> bool:
        """As the examination judges."""
        return all(it.is_right for it in judge(self.asked, self.free))

    @property
    def chosen_is_right(self) -> bool:
        """The same."""
        return all(it.is_right for it in judge(self.asked, self.chosen))


@dataclass(frozen=True)
class ChoiceScore:
    """How many of `questions` were right, and how many were answered otherwise with choices."""

    questions: int
    free_right: int
    chosen_right: int
    changed: int

    @property
    def lost(self) -> float:
        """Points of accuracy."""
        return 100 * (self.free_right - self.chosen_right) / max(1, self.questions)

    @property
    def is_reached(self) -> bool:
        """Choices cost no more than is allowed."""
        return self.lost <= MOST_LOST

    def text(self) -> str:
        """In a line."""
        return (
            f"{self.questions} closed questions: {self.free_right} right freely, {self.chosen_right} right with "
            f"choices ({0 - self.lost:+.1f} points), {self.changed} answered otherwise."
        )


def closed_questions(seed: int) -> list[Asked]:
    """Those about a drawn slide that are answered by a letter, Yes or No."""
    truth = slide_truth(seed)
    return [Asked(AS_IS, it, truth, truth) for it in slide_questions(truth, SEEN) if it.kind == "closed"]


def choices_of(asked: Asked) -> tuple[str, ...]:
    """What can be answered."""
    question = asked.question
    return tuple(LETTERS[: len(question.options)]) if question.form == "letter" else _YES_NO


def score_choices(pairs: Sequence[ClosedPair]) -> ChoiceScore:
    """Counted."""
    return ChoiceScore(
        questions=len(pairs),
        free_right=sum(it.free_is_right for it in pairs),
        chosen_right=sum(it.chosen_is_right for it in pairs),
        changed=sum(it.free.strip() != it.chosen for it in pairs),
    )
