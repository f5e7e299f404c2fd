"""The text metrics of both papers: the numbers of their published code, without its bugs."""

import json
import random
from pathlib import Path

import nltk
import pytest
from evaluation_fixtures import fixture, fixture_rows, needs_language_data, rows_of, shared

from evaluation.errors import MissingLanguageData
from evaluation.metrics import language_data
from evaluation.metrics.nlu import METRICS, NLU, mllm_hwsi, wsi_llava
from evaluation.metrics.rouge_words import common_words, rouge_l_words


def deviations(pairs: list[dict[str, str]], expected: dict[str, object], paper: str) -> list[str]:
    found = []
    for pair in pairs:
        scores = NLU[paper](pair["truth"], pair["answer"])
        for name, value in expected[paper]["per_item"][pair["id"]].items():  # type: ignore[index]
            if abs(scores[name] - value) > 1e-6:
                found.append(f"{pair['id']} {name}: {scores[name]} is not {value}")
    return found


@pytest.mark.parametrize("paper", NLU)
def test_made_up_pairs_get_the_published_numbers(paper: str) -> None:
    needs_language_data()

    assert deviations(fixture_rows("nlu_pairs.jsonl"), fixture("nlu_expected.json"), paper) == []


@pytest.mark.parametrize("paper", NLU)
def test_real_pairs_get_the_published_numbers(paper: str) -> None:
    needs_language_data()
    folder = shared("real")

    expected = json.loads((folder / "nlu_expected.json").read_text())

    assert deviations(rows_of(folder / "nlu_pairs.jsonl"), expected, paper) == []


def test_both_give_all_that_they_name() -> None:
    needs_language_data()

    assert {name: set(paper("a b", "b a")) for name, paper in NLU.items()} == {
        name: set(metrics) for name, metrics in METRICS.items()
    }


def test_a_looping_answer_is_scored() -> None:
    needs_language_data()
    looping = "the glands are irregular " * 600

    assert wsi_llava(looping, looping + "and")["ROUGE-L"] > 0.8
    assert mllm_hwsi("the glands are irregular", looping)["ROUGE-L"] < 0.1


@pytest.mark.parametrize("answer", ["", "  ", "...", "…"])
def test_an_answer_without_words_scores_nothing(answer: str) -> None:
    needs_language_data()

    assert set(wsi_llava("No mitoses are seen.", answer).values()) == {0.0}
    assert set(mllm_hwsi("No mitoses are seen.", answer).values()) == {0.0}


def test_data_that_is_missing_is_an_error_and_no_zero(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    language_data._folder.cache_clear()
    language_data.wordnet.cache_clear()
    try:
        with pytest.raises(MissingLanguageData, match="make language-data"):
            wsi_llava("a b", "a b")
        with pytest.raises(MissingLanguageData, match="make language-data"):
            mllm_hwsi("a b", "a b")
    finally:
        language_data._folder.cache_clear()
        language_data.wordnet.cache_clear()


def test_the_iterative_subsequence_is_the_one_of_the_recursion() -> None:
    """By the recurrence itself, with its choice between equals, on words that often repeat."""
    drawn = random.Random(7)
    for _ in range(200):
        first, second = ([drawn.choice("abcd") for _ in range(drawn.randrange(9))] for _ in range(2))

        assert common_words(first, second)[::-1] == _recursive(first, second)


def _recursive(first: list[str], second: list[str]) -> list[str]:
    def length(row: int, column: int) -> int:
        if not row or not column:
            return 0
        if first[row - 1] == second[column - 1]:
            return length(row - 1, column - 1) + 1
        return max(length(row - 1, column), length(row, column - 1))

    def words(row: int, column: int) -> list[str]:
        if not row or not column:
            return []
        if first[row - 1] == second[column - 1]:
            return [*words(row - 1, column - 1), first[row - 1]]
        up = length(row - 1, column) > length(row, column - 1)
        return words(row - 1, column) if up else words(row, column - 1)

    return words(len(first), len(second))


def test_sentences_are_cut_at_every_full_stop() -> None:
    assert rouge_l_words("3.5 cm", "5 3. cm") == pytest.approx(1.0, abs=0.5)
    assert rouge_l_words("...", "a") == 0.0
