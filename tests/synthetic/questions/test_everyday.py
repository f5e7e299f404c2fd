"""Everyday questions get the truth too, and what is not about the slide gets no invention."""

import numpy as np

from synthetic.questions.everyday import everyday_question
from synthetic.questions.question import report
from synthetic.questions.topics import TOPICS
from synthetic.questions.unanswerable import ENGLISH_ONLY, GREETING, REFUSAL
from synthetic.slide_truth import slide_truth


def test_each_answer_is_the_truth_or_says_that_there_is_none() -> None:
    rng = np.random.default_rng(0)
    topics = {topic.name: topic for topic in TOPICS}
    met = set()
    for seed in range(300):
        truth = slide_truth(seed)
        question = everyday_question(truth, rng)
        met.add(question.topic.split(":")[0])
        if question.topic in topics and question.form == "free":
            assert question.answer == topics[question.topic].answer(truth)
        elif question.topic == "report":
            assert question.answer == report(truth)
        elif question.form == "free":
            assert question.answer in (REFUSAL, GREETING, ENGLISH_ONLY)
    assert {"pattern", "report", "unanswerable", "language"} <= met


def test_whether_it_is_cancer_follows_the_pattern() -> None:
    rng = np.random.default_rng(1)
    for seed in range(400):
        truth = slide_truth(seed)
        question = everyday_question(truth, rng)
        if question.form == "yes_no" and question.topic == "histological type":
            benign = any(word in question.text for word in ("benign", "normal", "harmless"))
            assert question.answer == ("Yes" if benign == (truth.pattern == "benign") else "No")
