"""Closed questions asked both ways, counted."""

from evaluation.choices import ClosedPair, choices_of, closed_questions, score_choices

SEED = 2_000_700_000


def test_every_closed_question_has_its_answer_among_its_choices() -> None:
    asked = closed_questions(SEED)

    assert {it.question.form for it in asked} == {"letter", "yes_no"}
    assert all(it.question.answer in choices_of(it) for it in asked)


def test_what_choices_cost_is_counted_in_points() -> None:
    asked = closed_questions(SEED)
    wrong = [next(choice for choice in choices_of(it) if choice != it.question.answer) for it in asked]
    right = [ClosedPair(it, it.question.answer, it.question.answer) for it in asked]
    lost = [ClosedPair(asked[0], asked[0].question.answer, wrong[0]), *right[1:]]

    assert score_choices(right).is_reached
    assert (score_choices(lost).lost, score_choices(lost).changed) == (100 / len(asked), 1)
    assert not score_choices(lost).is_reached
    assert score_choices([ClosedPair(asked[0], "I cannot say.", asked[0].question.answer)]).lost == -100
