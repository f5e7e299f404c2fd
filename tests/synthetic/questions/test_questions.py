"""Questions are about their slide: right answers, options that can be told apart, wordings that training never saw."""

from collections import Counter

import numpy as np
import pytest

from synthetic.questions.question import (
    LETTERS,
    letter_question,
    necrosis_question,
    never_drawn_question,
    open_question,
    report,
    yes_no_question,
)
from synthetic.questions.slide_questions import slide_questions
from synthetic.questions.topics import NECROSIS, TOPICS, Topic
from synthetic.questions.wordings import SEEN, UNSEEN
from synthetic.slide_truth import SlideTruth, slide_truth

TRUTHS = [slide_truth(seed) for seed in range(60)]


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_no_phrase_of_a_topic_contains_another(topic: Topic) -> None:
    phrases = list(topic.phrases.values())
    assert not [(a, b) for a in phrases for b in phrases if a != b and a in b]


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_every_value_that_a_slide_can_have_has_a_phrase_and_an_answer(topic: Topic) -> None:
    values = {topic.value(slide_truth(seed)) for seed in range(300)}
    assert values == set(topic.phrases)
    assert len({topic.answer(slide_truth(seed)) for seed in range(300)}) == len(values)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_the_letter_stands_before_the_right_option_and_is_each_letter_in_turn(topic: Topic) -> None:
    rng = np.random.default_rng(0)
    letters: Counter[str] = Counter()
    for truth in TRUTHS:
        question = letter_question(topic, truth, SEEN, rng)
        assert question.options[LETTERS.index(question.answer)] == topic.phrase(truth)
        assert len(set(question.options)) == len(question.options) >= 2
        letters[question.answer] += 1
    options = min(len(LETTERS), len(topic.phrases))
    assert set(letters) == set(LETTERS[:options])
    assert max(letters.values()) < len(TRUTHS) * 1.7 / options


def test_the_options_stand_in_the_text_in_their_order() -> None:
    rng = np.random.default_rng(1)
    for truth in TRUTHS:
        question = letter_question(TOPICS[int(rng.integers(len(TOPICS)))], truth, SEEN, rng)
        places = [question.text.rindex(option) for option in question.options]
        assert places == sorted(places)


def test_yes_is_said_of_the_true_phrase_alone_and_in_half_of_the_cases() -> None:
    rng = np.random.default_rng(2)
    asked = [(topic, truth, yes_no_question(topic, truth, SEEN, rng)) for truth in TRUTHS for topic in TOPICS]
    for topic, truth, question in asked:
        assert question.options[0] in question.text
        assert (question.answer == "Yes") == (question.options[0] == topic.phrase(truth))
    assert 0.4 < np.mean([question.answer == "Yes" for _, _, question in asked]) < 0.6


def test_necrosis_is_asked_for_and_its_absence_too() -> None:
    rng = np.random.default_rng(3)
    for truth in TRUTHS:
        for _ in range(5):
            question = necrosis_question(truth, SEEN, rng)
            of_absence = any(word in question.text for word in ("absent", "free of", " no "))
            assert question.answer == ("Yes" if (truth.necrosis is None) == of_absence else "No")


def test_what_is_never_drawn_is_never_seen() -> None:
    rng = np.random.default_rng(4)
    questions = [never_drawn_question(SEEN, rng) for _ in range(100)]
    assert {question.answer for question in questions if question.kind == "closed"} == {"No"}
    assert all("not seen" in question.answer for question in questions if question.kind == "open")


def test_an_open_question_about_a_place_names_it_or_says_that_there_is_none() -> None:
    rng = np.random.default_rng(5)
    for truth in TRUTHS:
        answer = open_question(NECROSIS, truth, SEEN, rng).answer
        assert (truth.necrosis or "not seen") in answer


def test_a_report_states_every_attribute() -> None:
    truth = SlideTruth(1, "papillary", 3, "frequent", "sparse", "loose", "low", 0.2, "lower left")
    assert report(truth) == (
        "The growth pattern is papillary. The tumour is grade 3. Mitoses are frequent. The lymphocytes are sparse. "
        "The stroma is loose. The tumour fraction is low. The necrosis is in the lower left quadrant."
    )


def test_the_same_seed_has_the_same_questions_and_at_least_eight_closed_ones() -> None:
    for truth in TRUTHS[:10]:
        questions = slide_questions(truth)
        assert questions == slide_questions(truth)
        assert sum(question.kind == "closed" for question in questions) >= 8
        assert {question.answer for question in questions if question.kind == "closed"} <= {*LETTERS, "Yes", "No"}


def test_all_eleven_tasks_are_asked() -> None:
    tasks = {question.task for truth in TRUTHS for question in slide_questions(truth)}
    assert len(tasks) == 11


def test_no_wording_is_both_seen_and_unseen() -> None:
    for form in SEEN.__dataclass_fields__:
        assert not set(getattr(SEEN, form)) & set(getattr(UNSEEN, form))
