"""BERTScore from token vectors: by hand, and as bert_score computes it where ../shared has its tiny model."""

import json

import numpy as np
import pytest
from evaluation_fixtures import shared

from evaluation.metrics.bertscore import BertScorer
from server.commands.evaluate_bert import bert_scorer
from server.commands.outcome import CommandError


def test_by_hand() -> None:
    """The first and last token can be matched, and weigh nothing."""
    vectors = {
        "a": np.array([[9, 0, 0], [0, 2, 0], [0, 0, 5]], np.float32),
        "b": np.array([[0, 3, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0]], np.float32),
    }

    found = BertScorer(vectors.__getitem__).score("b", "a")

    assert found.precision == pytest.approx(1.0)
    assert found.recall == pytest.approx((np.sqrt(0.5) + 1.0) / 2)


def test_long_and_empty_texts() -> None:
    asked: list[str] = []
    scorer = BertScorer(lambda text: asked.append(text) or np.ones((3, 2), np.float32))

    scorer.score("word " * 300, " ")

    assert [len(text.split()) for text in asked] == [256, 1]
    assert asked[1] == "empty"


def test_the_published_package_gives_the_same() -> None:
    case = json.loads(shared("bertscore.json").read_text())
    scorer = bert_scorer(shared("bertscore_tiny_model"), case["settings"]["layers"])

    found = [scorer.score(row["reference"], row["prediction"]) for row in case["rows"]]

    for row, scores in zip(case["rows"], found, strict=True):
        assert (scores.precision, scores.recall, scores.f1) == pytest.approx(
            (row["precision"], row["recall"], row["f1"]), abs=1e-3
        )
    for name, mean in case["mean"].items():
        assert np.mean([getattr(scores, name) for scores in found]) == pytest.approx(mean, abs=1e-3)
    with pytest.raises(CommandError, match="layers, not 9"):
        bert_scorer(shared("bertscore_tiny_model"), 9)
