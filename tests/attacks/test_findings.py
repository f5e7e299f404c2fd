"""What the attacks make of what they saw."""

import json
from pathlib import Path

import pytest

import attacks.__main__ as command
from attacks.findings import Finding, as_json, at_most, exit_code, nothing_of, percentile, table, times_tell

HELD, BROKEN = at_most("memory", 10, 64, "MB"), at_most("memory", 65, 64, "MB")


def test_more_than_the_limit_is_broken_and_ends_in_1() -> None:
    assert (HELD.held, BROKEN.held) == (True, False)
    assert (exit_code([HELD]), exit_code([HELD, BROKEN])) == (0, 1)
    assert "| memory | 65 MB | ≤ 64 MB | BROKEN |" in table([HELD, BROKEN])
    assert "1 held, 1 broken." in table([HELD, BROKEN])
    assert [it["held"] for it in json.loads(as_json([HELD, BROKEN]))["findings"]] == [True, False]


def test_an_attack_that_attacked_nothing_is_broken() -> None:
    assert not nothing_of("ids", [], "refused", tried=0).held
    assert exit_code([]) == 1


def test_one_wrong_reply_of_many_is_broken() -> None:
    found = nothing_of("ids", ["GET: 200"], "refused", tried=100)

    assert not found.held
    assert found.seen == "1 of 100: GET: 200"


def test_the_99th_percentile_of_few_is_their_largest() -> None:
    assert percentile([0.1, 9.0, 0.2], 99) == 9.0
    assert percentile([float(value) for value in range(1000)], 99) == 990


@pytest.mark.parametrize(
    ("some", "others", "tells"),
    [
        ([0.31, 0.32, 0.33, 0.34] * 4, [0.11, 0.12, 0.13, 0.14] * 4, True),
        ([0.11, 0.32, 0.13, 0.34] * 4, [0.31, 0.12, 0.33, 0.14] * 4, False),
        ([0.0110, 0.0111] * 8, [0.0100, 0.0101] * 8, False),  # apart, by less than a network's noise
    ],
)
def test_times_tell_when_they_are_apart_in_rank_and_by_enough(
    some: list[float], others: list[float], tells: bool
) -> None:
    assert times_tell(some, others) == tells
    assert times_tell(others, some) == tells


def test_every_attack_is_there_and_described() -> None:
    folder = Path(command.__file__).parent
    readme = (folder / "README.md").read_text()

    for name in command.ATTACKS:
        assert (folder / f"{name}.py").is_file()
        assert f"`{name}.py`" in readme


def test_a_finding_says_what_was_seen_beside_the_limit() -> None:
    assert Finding("a", "b", "c", held=False).verdict == "BROKEN"
