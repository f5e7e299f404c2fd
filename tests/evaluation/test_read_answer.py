"""What counts as a statement, and what does not."""

import pytest

from evaluation.read_answer import reported_phrase, stated_phrase
from synthetic.questions.question import report
from synthetic.questions.topics import ATTRIBUTES, EXTENT, GRADE, LYMPHOCYTES, NECROSIS, PATTERN, STROMA, TOPICS, Topic
from synthetic.slide_truth import slide_truth

TRUTHS = [slide_truth(seed) for seed in range(60)]


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_every_right_answer_is_read_as_what_it_says(topic: Topic) -> None:
    assert [stated_phrase(topic, topic.answer(truth)) for truth in TRUTHS] == [topic.phrase(t) for t in TRUTHS]


@pytest.mark.parametrize("topic", ATTRIBUTES, ids=lambda topic: topic.name)
def test_every_attribute_is_read_out_of_a_report(topic: Topic) -> None:
    assert [reported_phrase(topic, report(truth)) for truth in TRUTHS] == [topic.phrase(t) for t in TRUTHS]


@pytest.mark.parametrize(
    ("topic", "text", "stated"),
    [
        (PATTERN, "I see a Papillary architecture here", "papillary"),
        (PATTERN, "The pattern is glandular, in places solid.", None),
        (PATTERN, "Glandular. The growth pattern is glandular.", "glandular"),
        (PATTERN, "The pattern is not solid.", None),
        (PATTERN, "The pattern is not solid but glandular.", "glandular"),
        (PATTERN, "solidly built", None),
        (PATTERN, "", None),
        (GRADE, "The tumour is grade 21.", None),
        (GRADE, "There is no grade to give.", "no grade"),
        (NECROSIS, "It lies in the lower right quadrant.", "lower right"),
        (NECROSIS, "Necrosis is not seen.", "not seen"),
        (NECROSIS, "Necrosis is not seen. It is in the upper left quadrant.", None),
        (EXTENT, "The tumour fraction is lowish.", None),
    ],
)
def test_a_statement_is_one_whole_phrase_that_is_not_denied(topic: Topic, text: str, stated: str | None) -> None:
    assert stated_phrase(topic, text) == stated


def test_in_a_report_a_word_counts_for_the_topic_that_its_sentence_names() -> None:
    text = "The lymphocytes are fibrous. The stroma is dense."

    assert reported_phrase(STROMA, text) is None
    assert reported_phrase(LYMPHOCYTES, text) is None
    assert reported_phrase(STROMA, "The stroma is loose. The capsule is fibrous.") == "loose"


def test_a_report_that_leaves_a_topic_out_states_nothing_of_it() -> None:
    assert reported_phrase(GRADE, "The growth pattern is solid. Mitoses are rare.") is None
