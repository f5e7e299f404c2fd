"""One answer beside the truth."""

import numpy as np
import pytest
from simulated_answers import BENIGN, seeing

from evaluation.judge import Asked, judge
from synthetic.questions.question import (
    Question,
    letter_question,
    necrosis_question,
    never_drawn_question,
    report_question,
    yes_no_question,
)
from synthetic.questions.slide_questions import slide_questions
from synthetic.questions.topics import ATTRIBUTES, NECROSIS, PATTERN
from synthetic.questions.wordings import SEEN, UNSEEN
from synthetic.slide_truth import SlideTruth, slide_truth

TRUTH = slide_truth(11)


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def asked(question: Question, shown: SlideTruth = TRUTH) -> Asked:
    return Asked("test", question, TRUTH, shown)


@pytest.mark.parametrize("wordings", [SEEN, UNSEEN], ids=["seen", "unseen"])
def test_every_right_answer_of_a_slide_is_right(wordings: object) -> None:
    for seed in range(30):
        truth = slide_truth(seed)
        for question in slide_questions(truth, wordings):  # type: ignore[arg-type]
            for judgement in judge(Asked("test", question, truth, truth), question.answer):
                assert judgement.is_right, (question, judgement)
                assert judgement.chance == 1


@pytest.mark.parametrize("text", ["The answer is B.", "b", "E", "", "Yes, B"])
def test_a_letter_is_exactly_a_letter(text: str) -> None:
    (judgement,) = judge(asked(letter_question(PATTERN, TRUTH, SEEN, rng())), text)

    assert (judgement.given, judgement.is_right, judgement.kind) == (None, False, "closed")


def test_space_around_a_closed_answer_is_nothing() -> None:
    question = yes_no_question(PATTERN, TRUTH, SEEN, rng())

    (judgement,) = judge(asked(question), f" {question.answer}\n")

    assert judgement.is_right


def test_a_report_is_judged_once_for_each_attribute() -> None:
    judgements = judge(asked(report_question(TRUTH, SEEN, rng())), PATTERN.answer(TRUTH))

    assert [judgement.topic for judgement in judgements] == [topic.name for topic in ATTRIBUTES]
    assert [judgement.is_right for judgement in judgements] == [True, *[False] * (len(ATTRIBUTES) - 1)]
    assert {judgement.kind for judgement in judgements} == {"report"}


def test_what_is_not_there_has_to_be_named() -> None:
    drawn = (never_drawn_question(SEEN, np.random.default_rng(seed)) for seed in range(20))
    question = next(one for one in drawn if one.form == "free")

    assert judge(asked(question), question.answer)[0].is_right
    assert not judge(asked(question), "Necrosis is not seen.")[0].is_right
    assert not judge(asked(question), f"{question.answer} It is in the upper left quadrant.")[0].is_right


def test_the_chance_is_what_an_answer_about_the_slide_that_was_shown_gets() -> None:
    """For whatever has one right answer; options without it are a guess among them."""
    for seed in range(40):
        shown = slide_truth(seed)
        for question in slide_questions(TRUTH, SEEN):
            one = asked(question, shown)
            for judgement in judge(one, seeing(one)):
                if judgement.chance in (0.0, 1.0):
                    assert judgement.is_right == (judgement.chance == 1.0), (question, shown)
                else:
                    assert judgement.chance == 1 / len(question.options)


def test_asking_for_absence_turns_the_answer_round() -> None:
    for seed in range(40):
        question = necrosis_question(TRUTH, SEEN, np.random.default_rng(seed))
        assert judge(asked(question, BENIGN), question.answer)[0].chance == 0.0
    assert NECROSIS.phrase(TRUTH) != NECROSIS.phrase(BENIGN)
