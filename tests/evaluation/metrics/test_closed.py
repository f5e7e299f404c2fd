"""Closed answers are read by the rules, and what the rules do not cover is nothing."""

import pytest
from evaluation_fixtures import fixture, fixture_rows

from evaluation.metrics.closed import clean_truth, read_closed

CASES = fixture_rows("closed_cases.jsonl")
OPTIONS = ("Luminal A", "HER2-enriched", "Luminal B", "Basal")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['id']} {case['note']}")
def test_every_case_is_read_as_it_should_be(case: dict[str, object]) -> None:
    reading = read_closed(case["form"], case["answer"], case["options"])  # type: ignore[arg-type]

    assert (reading.exact, reading.read) == (case["exact"], case["read"])


def test_the_cases_together_give_the_expected_numbers() -> None:
    expected = fixture("closed_expected.json")
    readings = [(case["truth"], read_closed(case["form"], case["answer"], case["options"])) for case in CASES]

    assert sum(reading.exact == truth for truth, reading in readings) == expected["right_exact"]
    assert sum(reading.read == truth for truth, reading in readings) == expected["right_read"]
    assert sum(reading.read is None for _, reading in readings) == expected["unreadable"]


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("The answer is A, a papillary tumour.", "A"),
        ("The answer is A, B.", None),
        ("The answer is A, or C", None),
        ("Option A or option B", None),
        ("Option A. The answer is B.", None),
        ("The answer is A-type growth", None),
        ("the answer is b.", "B"),
        ("the answer is a papillary tumour", None),
        ("My choice: (C)", "C"),
        ("The answer is **D**.", "D"),
        ("B - HER2-enriched", "B"),
        ("B-cell lymphoma", None),
        ("A.5 cm", None),
        ("(b)", "B"),
        ("HER2-enriched  .", "B"),
        ("e", None),
        ("Answer:\nA", "A"),
        ("[C] Luminal B", "C"),
        ("Grade B", None),
        ("Options A", None),
    ],
)
def test_letters(answer: str, read: str | None) -> None:
    assert read_closed("letter", answer, OPTIONS).read == read


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("Yes or no? The answer is no", "No"),
        ("The answer is yes or no", None),
        ("Yes, no doubt about it", "Yes"),
        ("**No**", "No"),
        ('"Yes"', "Yes"),
        ("No-one can tell", None),
        ("Answer: No", "No"),
        ("Nope", None),
        ("I say yes", None),
    ],
)
def test_yes_and_no(answer: str, read: str | None) -> None:
    assert read_closed("yes_no", answer).read == read


def test_an_option_beyond_the_fourth_can_be_chosen() -> None:
    options = [f"class {number}" for number in range(30)][:20]

    assert read_closed("letter", "T", options).exact == "T"
    assert read_closed("letter", "The answer is S.", options).read == "S"


def test_two_options_of_the_same_text_are_told_apart_by_nothing() -> None:
    assert read_closed("letter", "same", ["same", "Same.", "other"]).read is None


@pytest.mark.parametrize(("truth", "cleaned"), [('B "', "B"), ("C ```", "C"), (" 'Yes' ", "Yes"), ("A", "A")])
def test_a_truth_loses_quotation_marks_and_fences(truth: str, cleaned: str) -> None:
    assert clean_truth(truth) == cleaned
