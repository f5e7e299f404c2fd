from collections.abc import Callable

import pytest

from benchmarks.take_turns import Cost, Spread, Turns, cost_of, take_turns


def test_ratios_are_taken_round_by_round() -> None:
    base = [Cost(1.0, 9.0), Cost(2.0, 9.0), Cost(4.0, 9.0)]
    other = [Cost(2.0, 9.0), Cost(5.0, 9.0), Cost(4.0, 9.0)]
    turns = Turns({"base": base, "other": other}, [])

    # Of the medians it would be 2 ÷ 4.
    assert turns.cpu_ratio("other", "base") == Spread(0.5, 0.4, 1.0)
    assert turns.cpu_ratio("base", "base") == Spread(1.0, 1.0, 1.0)
    assert turns.per_cpu_s("other", 100) == 25.0


def test_every_second_round_goes_backwards() -> None:
    calls: list[tuple[str, int]] = []

    def method(name: str) -> Callable[[int], Cost]:
        def turn(number: int) -> Cost:
            calls.append((name, number))
            return Cost(float(number + 1), 1.0)

        return turn

    turns = take_turns({name: method(name) for name in "abc"}, 3)

    assert "".join(name for name, _ in calls) == "abccbaabc"
    assert [number for _, number in calls] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [cost.cpu_s for cost in turns.costs["b"]] == [1.0, 2.0, 3.0]
    assert len(turns.spin_shares) == 4


def test_the_cost_is_that_of_the_work() -> None:
    cost = cost_of(lambda: sum(range(1_000_000)))

    assert cost.cpu_s > 0
    assert cost.cpu_s == pytest.approx(cost.wall_s, abs=5)
