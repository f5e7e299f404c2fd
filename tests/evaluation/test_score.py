"""Shares, their uncertainty, and what can be had without looking."""

import math

import pytest

from evaluation.judge import Asked, Judgement
from evaluation.score import Score, best_constant, chance_agreement, same_questions, score
from synthetic.questions.question import Form, Question
from synthetic.slide_truth import slide_truth


def judgement(
    wanted: str, given: str | None = None, *, phrase: str = "", topic: str = "grade", seed: int = 1
) -> Judgement:
    form: Form = "letter" if wanted in "ABCD" else "yes_no"
    truth = slide_truth(seed)
    asked = Asked("as is", Question("Grading", topic, form, f"Which {topic}?", wanted), truth, truth)
    return Judgement(asked, topic, form, wanted, phrase or wanted, given, 0.25)  # type: ignore[arg-type]


def test_nothing_readable_is_wrong() -> None:
    assert score([judgement("A", "A"), judgement("A", "B"), judgement("A", None)]) == Score(1, 3)


@pytest.mark.parametrize(
    ("right", "asked", "margin"), [(60, 60, 0.030), (57, 60, 0.060), (30, 60, 0.123), (0, 14, 0.108)]
)
def test_the_margin_is_wilsons(right: int, asked: int, margin: float) -> None:
    """Reference values: statsmodels' proportion_confint(right, asked, method="wilson"), half its width."""
    assert Score(right, asked).margin == pytest.approx(margin, abs=5e-4)


def test_of_nothing_there_is_no_share() -> None:
    assert math.isnan(score([]).share)
    assert math.isnan(chance_agreement([]))
    assert not math.isnan(Score(0, 1).margin)


def test_the_best_constant_is_per_topic_and_form() -> None:
    asked = [
        *(judgement("A", phrase=phrase) for phrase in ("x", "y", "z")),
        *(judgement("B", phrase="x") for _ in range(2)),
        *(judgement(answer) for answer in ("Yes", "Yes", "No")),
        judgement("A", topic="stage"),
    ]

    assert best_constant(asked) == Score(3 + 2 + 1, 9)


def test_the_same_words_can_beat_the_same_letter() -> None:
    assert best_constant([judgement(letter, phrase="not seen") for letter in "ABCD"]) == Score(4, 4)


def test_questions_are_the_same_when_slide_and_words_are() -> None:
    reference = [judgement("A", seed=1), judgement("A", seed=2), judgement("A", topic="stage", seed=1)]

    assert same_questions(reference, [judgement("B", seed=2)]) == [reference[1]]
