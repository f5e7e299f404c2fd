"""Label match and retrieval: the numbers of MLLM-HWSI's public code."""

import numpy as np
import pytest
from evaluation_fixtures import fixture

from evaluation.metrics.label_match import match_label
from evaluation.metrics.retrieval import retrieve

LABELS = fixture("hwsi_classification.json")


@pytest.mark.parametrize("row", LABELS["rows"], ids=lambda row: row["id"])
def test_labels_match_as_published(row: dict[str, str]) -> None:
    match = match_label(row["prediction"], row["reference"])

    assert (float(match.is_match), match.answer, match.truth, match.mode) == (
        row["accuracy"],
        row["pred_norm"],
        row["ref_norm"],
        row["match_mode"],
    )


def test_slides_and_reports_are_ranked_as_published() -> None:
    case = fixture("retrieval.json")

    both = retrieve(np.array(case["similarity"]))

    for found, direction in zip(both, ("report_to_slide", "slide_to_report"), strict=True):
        expected = dict(case[direction])
        assert list(found.ranks) == expected.pop("ranks")
        assert found.scores() == pytest.approx(expected, abs=1e-9)


def test_finding_everything_alike_is_worth_nothing() -> None:
    reports, slides = retrieve(np.ones((12, 12)))

    assert reports.scores()["Recall@10"] == slides.scores()["Recall@10"] == 0.0


@pytest.mark.parametrize("square", [np.zeros((2, 3)), np.zeros((0, 0)), np.full((2, 2), np.nan)])
def test_what_is_no_square_of_numbers_is_refused(square: np.ndarray) -> None:
    with pytest.raises(ValueError):
        retrieve(square)
