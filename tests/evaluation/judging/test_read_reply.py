"""A judge's reply is read by the rules; nothing is repaired, nothing is dropped."""

from collections import Counter

import pytest
from evaluation_fixtures import fixture, fixture_rows

from evaluation.judging.read_reply import read_claims, read_scores

REPLIES = fixture_rows("judge_replies.jsonl")


@pytest.mark.parametrize("row", REPLIES, ids=lambda row: f"{row['id']} {row['note']}")
def test_every_reply_is_read_as_it_should_be(row: dict[str, object]) -> None:
    judged = read_scores(row["reply"], row["claims"])  # type: ignore[arg-type]

    assert (judged.reason or "ok", judged.score) == (row["status"], row["score"])


def test_together_they_give_both_means_and_all_reasons() -> None:
    expected = fixture("judge_expected.json")
    judged = [(row["type"], read_scores(row["reply"], row["claims"])) for row in REPLIES]

    for kind, wanted in {**expected["by_type"], None: expected["all"]}.items():
        scores = [found.score for its_kind, found in judged if kind in (None, its_kind)]
        read = [score for score in scores if score is not None]
        assert (len(scores), len(read)) == (wanted["items"], wanted["scored"])
        assert (round(sum(read) / len(read), 3) if read else None) == wanted["mean_without_failures"]
        assert round(sum(read) / len(scores), 3) == wanted["mean_failures_as_0"]
    assert Counter(found.reason for _, found in judged if found.reason) == expected["failures"]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ('<think>[1]</think>\n[{"score": 1}]', None),
        ('[{"score": NaN}]', "not_json"),
        ('[{"score": 5}]', "score_not_in_set"),
        ('[{"score": true}]', "missing_score"),
        ('[{"score": null}]', "missing_score"),
        ("[1]", "not_a_list_of_objects"),
        ('{"score": 1}', "not_a_list_of_objects"),
        ('{"a": [{"score": 1}], "b": 2}', "not_a_list_of_objects"),
        ("[" * 100_000 + "]" * 100_000, "not_json"),
        ("<think>endless", "not_json"),
        ("<think>only</think>", "empty"),
        ("1", "not_a_list_of_objects"),
    ],
)
def test_other_replies(reply: str, reason: str | None) -> None:
    assert read_scores(reply, ["a claim"]).reason == reason


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ('["a", "b"]', None),
        ('Claims:\n["a", "b"]', None),
        ('{"claims": ["a", "b"]}', None),
        ("[]", "no_claims"),
        ('["a", 1]', "not_a_list_of_texts"),
        ('["a", " "]', "not_a_list_of_texts"),
        (None, "no_reply"),
        ("", "empty"),
        ("none", "not_json"),
    ],
)
def test_claims(reply: str | None, reason: str | None) -> None:
    found = read_claims(reply)

    assert (found.reason, found.claims) == (reason, ("a", "b") if reason is None else ())
