"""A file of answers is read as it is: what is odd about it is counted and named."""

from pathlib import Path

import pytest
from evaluation_fixtures import FIXTURES, fixture, needs_language_data

from evaluation.benchmark.predictions import read_predictions
from evaluation.errors import UnreadableSet
from evaluation.metrics.nlu import METRICS, wsi_llava


def test_a_file_with_every_fault_gives_the_expected_numbers() -> None:
    needs_language_data()
    expected = fixture("nlu_corpus_expected.json")

    found = read_predictions(FIXTURES / "nlu_corpus.jsonl")

    scores = [wsi_llava(found.truths[key], answer) for key, answer in found.answers.items() if answer is not None]
    for metric in METRICS["wsi_llava"]:
        total = sum(score[metric] for score in scores)
        assert total / len(scores) == pytest.approx(expected["published"][metric], abs=1e-6)
        assert total / len(found.answers) == pytest.approx(expected["ours"]["mean_failures_as_0"][metric], abs=1e-6)


def test_faults_are_counted_and_named() -> None:
    expected = fixture("nlu_corpus_expected.json")["ours"]

    found = read_predictions(FIXTURES / "nlu_corpus.jsonl")

    assert (found.rows, len(found.not_json), len(found.answers)) == (
        expected["rows_in_file"],
        expected["not_json"],
        expected["questions"],
    )
    assert (found.duplicates, found.without_answer) == (("q3",), ["q2", "q5"])
    assert found.not_json == (7,)


def test_the_metric_scripts_csv_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text('question_id,metadata,model_output\nq1,Report,"A, b."\nq2,Report,\n')

    assert read_predictions(path).answers == {"q1": "A, b.", "q2": None}


def test_a_row_without_an_id_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"answer": "A"}\n')

    with pytest.raises(UnreadableSet, match="line 1 names no question"):
        read_predictions(path)
