import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_set import open_item

from evaluation.ablations.compare_metrics import area_under_curve, compare_metrics, drawn_reports, rank_correlation
from evaluation.ablations.table_file import AblationTable, read_tables
from evaluation.asking.conditions import AS_IS, WRONG_SAME, Condition
from evaluation.errors import RunMismatch
from evaluation.scoring.rows import Row, Value
from synthetic.questions.topics import ATTRIBUTES


def row(number: int, condition: Condition, value: float | None, reason: str | None = None) -> Row:
    item = open_item(number, "truth")
    return Row(condition, item, "s", item.question, item.truth, "text", reason, {"M": Value(value, reason)})


def test_the_area_counts_ties_as_half_and_is_the_share_of_right_orders() -> None:
    rng = np.random.default_rng(0)
    right, wrong = rng.integers(0, 5, 40).astype(float), rng.integers(0, 4, 30).astype(float)
    plainly = np.mean([(a > b) + (a == b) / 2 for a in right for b in wrong])

    assert area_under_curve(right, wrong) == pytest.approx(plainly)
    assert area_under_curve(np.ones(3), np.ones(2)) == 0.5
    assert area_under_curve(np.array([2.0]), np.array([1.0])) == 1.0


def test_rank_correlation_is_of_order_alone() -> None:
    values = np.array([0.1, 0.5, 0.2, 0.9])

    assert rank_correlation(values, values**3) == pytest.approx(1.0)
    assert rank_correlation(values, -values) == pytest.approx(-1.0)
    assert rank_correlation(values, np.ones(4)) == 0.0
    # scipy.stats.spearmanr([1, 2, 2, 3], [1, 3, 2, 4])
    assert rank_correlation(np.array([1.0, 2, 2, 3]), np.array([1.0, 3, 2, 4])) == pytest.approx(0.9486832980505139)


def test_answers_are_paired_by_question_and_failures_are_nothing() -> None:
    rows = {
        ("model", AS_IS): [row(0, AS_IS, 0.9), row(1, AS_IS, None, "too_late"), row(2, AS_IS, 0.8), row(3, AS_IS, 1.0)],
        ("model", WRONG_SAME): [
            row(0, WRONG_SAME, 0.1),
            row(1, WRONG_SAME, 0.5),
            row(2, WRONG_SAME, 0.8),
            row(3, WRONG_SAME, None, "no_other_patient"),
        ],
        ("predictions", AS_IS): [row(0, AS_IS, 0.9)],
    }

    (line,) = compare_metrics(rows)

    assert (line["target"], line["metric"], line["rows"]) == ("model", "M", 3)
    assert line["wins"] == 0.5  # won, lost, equal
    assert line["auc"] == pytest.approx(5.5 / 9, abs=1e-6)


def test_reports_are_as_right_as_is_said() -> None:
    reports = drawn_reports(30)

    for one in reports:
        said = [sentence for sentence in one.reference.split(". ") if sentence.rstrip(".") in one.answer]
        assert len(said) / len(ATTRIBUTES) == pytest.approx(one.right)
    assert {one.right for one in reports} >= {0.0, 1.0}
    assert reports == drawn_reports(30)


def test_tables_come_back_as_they_were_written_and_others_are_refused(tmp_path: Path) -> None:
    table = AblationTable("Title", ["Note."], ["a", ""], [["1", ""]], {"x": 1})
    table.write(tmp_path / "one.json")

    assert read_tables(tmp_path) == [replace(table)]
    assert read_tables(tmp_path / "none") == []
    (tmp_path / "two.json").write_text(json.dumps({"title": "x"}))
    with pytest.raises(RunMismatch, match="two"):
        read_tables(tmp_path)
