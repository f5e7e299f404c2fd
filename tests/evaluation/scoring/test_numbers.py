"""Statistics by hand, pools of rare projects, readings of numbers, and the baselines that need no model."""

from collections.abc import Sequence

import numpy as np
import pytest
from evaluation_fixtures import needs_language_data
from small_set import item, open_item, questions

from evaluation.metrics.number import read_number
from evaluation.scoring.baselines import ANOTHER, CONSTANT, LONGEST, SAME_PROJECT, baseline_rows
from evaluation.scoring.projects import is_too_small, project_groups
from evaluation.scoring.rows import READ, Measures, Row, Value
from evaluation.scoring.statistics import Interval, bootstrap_by_patient, wilson
from evaluation.scoring.summary import summarize


def rows(values: Sequence[float | None], condition: str = "as is", reason: str = "unreadable") -> list[Row]:
    return [
        Row(
            condition,
            item(n, patient=f"p{n // 2}"),
            "",
            "",
            "A",
            "A",
            None,
            {READ: Value(v, None if v is not None else reason)},
        )  # type: ignore[arg-type]
        for n, v in enumerate(values)
    ]


def test_wilson_by_hand() -> None:
    found = wilson(8, 10)

    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 5) == Interval(0.0, pytest.approx(0.4345, abs=1e-4))
    assert wilson(0, 0) is None


def test_patients_are_drawn_and_not_rows() -> None:
    """Ten rows of each of two patients say no more than one of each."""
    alone = bootstrap_by_patient([0.0, 1.0], ["a", "b"])
    often = bootstrap_by_patient([0.0] * 10 + [1.0] * 10, ["a"] * 10 + ["b"] * 10)

    assert alone == often == Interval(0.0, 1.0)
    assert bootstrap_by_patient([0.0, 1.0], ["a", "a"]) is None


def test_the_bootstrap_covers_as_it_should() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(60):
        values = rng.normal(0.5, 0.2, 40)
        found = bootstrap_by_patient(list(values), [str(n) for n in range(40)])
        assert found is not None
        hits += found.low <= 0.5 <= found.high

    assert 50 <= hits <= 60


def test_failures_are_in_one_mean_and_counted() -> None:
    found = summarize(rows([1.0, 1.0, None, 0.0]), READ)

    assert (found.rows, found.scored, found.failures) == (4, 3, {"unreadable": 1})
    assert (found.mean_as_0, found.mean_without) == (0.5, pytest.approx(2 / 3))
    assert found.patients == 2


def test_a_question_that_had_no_other_slide_is_counted_and_in_no_mean() -> None:
    found = summarize(rows([1.0, None], reason="no_other_patient"), READ)

    assert (found.rows, found.failures, found.mean_as_0) == (2, {"no_other_patient": 1}, 1.0)


def test_the_gain_is_of_the_same_rows() -> None:
    as_is, wrong = rows([1.0, 1.0, 1.0, 0.0]), rows([0.0, None, 1.0], "wrong slide")

    found = summarize(wrong, READ, as_is)

    assert (found.gain, found.gain_rows) == (pytest.approx(2 / 3), 3)


def test_rare_projects_are_pooled_by_training_slides_and_others_for_want_of_slides() -> None:
    items = [item(n, project="LARGE") for n in range(5)]
    items += [item(10, project="RARE"), item(11, project="SMALL"), item(12, project="UNKNOWN")]

    groups = project_groups(items, {"LARGE": 1000, "RARE": 20, "SMALL": 300})

    assert groups == {
        "LARGE": "LARGE",
        "RARE": "rare: RARE, UNKNOWN",
        "UNKNOWN": "rare: RARE, UNKNOWN",
        "SMALL": "few slides: SMALL",
    }
    assert project_groups(items)["RARE"] == "few slides: RARE, SMALL, UNKNOWN"
    assert is_too_small(items[:4])
    assert not is_too_small(items[:5])


@pytest.mark.parametrize(
    ("answer", "read"),
    [("3", ("3", "3")), ("Grade 3.", (None, "3")), ("3 + 4", (None, None)), ("3.5", (None, None)), ("T2", (None, None)),
     ('{"isup_grade": 4}', (None, "4")), ("", (None, None))],
)  # fmt: skip
def test_numbers(answer: str, read: tuple[str | None, str | None]) -> None:
    assert read_number(answer) == read


def test_baselines_of_closed_questions() -> None:
    items = [item(n, truth=truth, options=options) for n, (truth, options) in enumerate(
        [("A", ("long one", "b", "c")), ("A", ("a", "the longest", "c")), ("B", ("a", "b", "c, the longest"))]
    )]  # fmt: skip

    found = baseline_rows(questions(*items), Measures(papers=()), 0)

    assert [row.values[READ].value for row in found[CONSTANT]] == [1.0, 1.0, 0.0]
    assert [row.values[READ].value for row in found[LONGEST]] == [1.0, 0.0, 0.0]
    assert found[ANOTHER] == found[SAME_PROJECT] == []


def test_another_patients_reference_of_the_same_project() -> None:
    needs_language_data()
    items = [open_item(n, truth) for n, truth in enumerate(["one two", "one two", "three four", "three four"])]

    found = baseline_rows(questions(*items), Measures(papers=("wsi_llava",)), 0)

    assert [row.values["BLEU-1 (wsi_llava)"].value for row in found[SAME_PROJECT]] == [1.0] * 4
    assert {row.shown for row in found[SAME_PROJECT]} == {"s0", "s1", "s2", "s3"}
    alone = baseline_rows(questions(open_item(0, "one")), Measures(papers=("wsi_llava",)), 0)[SAME_PROJECT]
    assert [row.values["BLEU-1 (wsi_llava)"].reason for row in alone] == ["no_other_patient"]
