"""Who passes the examination, and who must not."""

from dataclasses import replace
from functools import cache

import pytest
from simulated_answers import Answerer, blind, judged, seeing, seeing_but_for_places

from evaluation.criteria import FULL, SHORT, Criterion, Thresholds, check, missed
from evaluation.exam import (
    FOLLOW_UP,
    RESTAINED,
    SHORT_SIZE,
    SHUFFLED,
    ExamSize,
    full_size,
    plan_exam,
)
from evaluation.judge import Asked
from synthetic.questions.topics import NECROSIS

# The limits of the full examination over fewer slides, which takes less time here.
SOME = (full_size(24), replace(FULL, slides=24))
EXAMS = [pytest.param(*SOME, id="full"), pytest.param(SHORT_SIZE, SHORT, id="short")]
planned = cache(plan_exam)


def outcome(size: ExamSize, limits: Thresholds, answerer: Answerer) -> list[Criterion]:
    return check(judged(planned(size), answerer), limits)


def looking(asked: Asked) -> str:
    """Sees all, and loses its way where tiles have changed places."""
    return seeing_but_for_places(asked) if asked.condition == SHUFFLED else seeing(asked)


def worse_at(condition: str) -> Answerer:
    """Sees all, but in one condition nothing half of the time."""

    def answer(asked: Asked) -> str:
        lapses = asked.condition == condition and len(asked.question.text) % 2 == 0
        return blind(asked) if lapses else looking(asked)

    return answer


def without_topic(topic: str) -> Answerer:
    """Sees all but one thing."""
    return lambda asked: blind(asked) if asked.question.topic == topic else looking(asked)


@pytest.mark.parametrize(("size", "limits"), EXAMS)
def test_who_sees_passes(size: ExamSize, limits: Thresholds) -> None:
    assert missed(outcome(size, limits, looking)) == []


@pytest.mark.parametrize(("size", "limits"), EXAMS)
def test_who_does_not_look_fails(size: ExamSize, limits: Thresholds) -> None:
    failures = missed(outcome(size, limits, blind))

    for name in ("closed questions: at least", "open answers, as is", "reports, as is", "open answers, unseen"):
        assert any(failure.startswith(name) for failure in failures), (name, failures)
    assert any(failure.startswith(SHUFFLED) for failure in failures)


@pytest.mark.parametrize(("size", "limits"), EXAMS)
def test_who_knows_the_slides_by_heart_fails(size: ExamSize, limits: Thresholds) -> None:
    """Whatever is shown, the label of the questions' slide: agreement stays where it should fall."""
    failures = missed(outcome(size, limits, lambda asked: asked.question.answer))

    assert len(failures) == 4
    assert all(failure.startswith(("another slide", SHUFFLED)) for failure in failures)


@pytest.mark.parametrize(("size", "limits"), EXAMS)
@pytest.mark.parametrize("condition", [FOLLOW_UP, RESTAINED])
def test_a_condition_that_is_worse_is_named(size: ExamSize, limits: Thresholds, condition: str) -> None:
    failures = missed(outcome(size, limits, worse_at(condition)))

    assert failures
    assert all(failure.startswith(condition) for failure in failures)


@pytest.mark.parametrize("topic", ["mitoses", "stage"])
def test_one_unknown_topic_fails_the_full_examination_by_name(topic: str) -> None:
    failures = missed(outcome(*SOME, without_topic(topic)))

    assert any(failure.startswith("closed questions: no topic under 85%") and topic in failure for failure in failures)


def test_who_does_not_know_where_tiles_are_does_not_fall() -> None:
    failures = missed(outcome(*SOME, seeing_but_for_places))

    assert any(failure.startswith(SHUFFLED) for failure in failures)
    assert any(NECROSIS.name in failure for failure in failures)


def test_too_few_slides_are_not_enough() -> None:
    assert missed(outcome(full_size(24), FULL, looking)) == ["at least 60 slides (24)"]


def test_nothing_asked_is_nothing_reached() -> None:
    assert len(missed(check([], FULL))) == len(check([], FULL))
