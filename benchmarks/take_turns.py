"""Methods measured beside each other: in turns, in one process, and compared round by round.

Shared machines change their speed from second to second. Two numbers of one round saw the same machine, so what is
reported of them is the median of the rounds' ratios.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

_SPIN_S = 0.1


@dataclass(frozen=True)
class Cost:
    """CPU seconds, over all processes and threads that took part, and seconds on the clock."""

    cpu_s: float
    wall_s: float


@dataclass(frozen=True)
class Spread:
    """The median of the rounds, and the rounds that lie farthest from it."""

    median: float
    least: float
    most: float


@dataclass(frozen=True)
class Turns:
    """What each method cost in each round, by its name; `spin_shares` is how much of a core a bare loop got."""

    costs: dict[str, list[Cost]]
    spin_shares: list[float]

    def cpu_ratio(self, method: str, base: str) -> Spread:
        """How many times as much `method` does per CPU second as `base`: 0.5 is half as fast."""
        pairs = zip(self.costs[method], self.costs[base], strict=True)
        return spread([other.cpu_s / own.cpu_s for own, other in pairs])

    def per_cpu_s(self, method: str, count: int) -> float:
        """Of `count` things done in each round, how many in a CPU second."""
        return median(count / cost.cpu_s for cost in self.costs[method])


def spread(values: list[float]) -> Spread:
    """Median and extremes."""
    return Spread(median(values), min(values), max(values))


def take_turns(methods: Mapping[str, Callable[[int], Cost]], rounds: int) -> Turns:
    """Calls every method once a round with the round's number; odd rounds go through them backwards."""
    costs: dict[str, list[Cost]] = {name: [] for name in methods}
    shares = [spin_share()]
    for number in range(rounds):
        for name in list(methods)[:: 1 if number % 2 == 0 else -1]:
            costs[name].append(methods[name](number))
        shares.append(spin_share())
    return Turns(costs, shares)


def cost_of(work: Callable[[], object]) -> Cost:
    """What this process spends on a call, all its threads together."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.process_time() - cpu, time.perf_counter() - wall)


def spin_share(seconds: float = _SPIN_S) -> float:
    """CPU time per second of a loop that never waits: below 1 where others use the cores too."""
    wall, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        pass
    return (time.process_time() - cpu) / (time.perf_counter() - wall)
