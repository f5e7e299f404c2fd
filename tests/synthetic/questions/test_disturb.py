"""Disturbed questions ask for the same: their options stay, and so does the answer."""

import numpy as np

from synthetic.questions.disturb import disturbed
from synthetic.questions.question import letter_question, yes_no_question
from synthetic.questions.topics import TOPICS
from synthetic.questions.wordings import SEEN
from synthetic.slide_truth import slide_truth


def test_options_and_answer_stay() -> None:
    rng = np.random.default_rng(0)
    changed = 0
    for seed in range(40):
        for make in (letter_question, yes_no_question):
            question = make(TOPICS[seed % len(TOPICS)], slide_truth(seed), SEEN, rng)
            after = disturbed(question, rng)
            assert (after.answer, after.options, after.phrase) == (question.answer, question.options, question.phrase)
            assert all(option in after.text for option in question.options)
            changed += after.text != question.text
    assert changed > 20
