"""The questions that go with one synthetic slide: the same for the same seed, with options in random order."""

from typing import Final

import numpy as np

from synthetic.questions.question import (
    Question,
    any_topic,
    letter_question,
    necrosis_question,
    never_drawn_question,
    open_question,
    report_question,
    summary_question,
    yes_no_question,
)
from synthetic.questions.topics import TOPICS
from synthetic.questions.wordings import SEEN, Wordings
from synthetic.slide_truth import SlideTruth

YES_NO_QUESTIONS: Final = 4


def slide_questions(truth: SlideTruth, wordings: Wordings = SEEN) -> list[Question]:
    """Every topic once with options and once open, Yes/No questions, four descriptions, what is not there, a report."""
    rng = np.random.default_rng([truth.seed, 1])
    return [
        *(letter_question(topic, truth, wordings, rng) for topic in TOPICS),
        necrosis_question(truth, wordings, rng),
        *(yes_no_question(any_topic(rng), truth, wordings, rng) for _ in range(YES_NO_QUESTIONS)),
        *(open_question(topic, truth, wordings, rng) for topic in TOPICS),
        never_drawn_question(wordings, rng),
        summary_question(truth, wordings, rng),
        report_question(truth, wordings, rng),
    ]
