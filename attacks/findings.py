"""The findings of an attack: what it saw beside what it may see, as a table and as JSON."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt

# Two-sided p < 0.001; with ten pairs nothing smaller can be told from a busy machine.
_CLEARLY_APART = 3.3
# A difference that nobody can use over a network, however often it is measured.
_TELLING_S = 0.02


@dataclass(frozen=True)
class Finding:
    """One line of the table; `held` is whether what was seen keeps to the limit."""

    attack: str
    seen: str
    limit: str
    held: bool

    @property
    def verdict(self) -> str:
        """In the table."""
        return "held" if self.held else "BROKEN"


def at_most(attack: str, seen: float, limit: float, unit: str) -> Finding:
    """A number that must not be larger."""
    return Finding(attack, f"{_number(seen)} {unit}".strip(), f"≤ {_number(limit)} {unit}".strip(), seen <= limit)


def nothing_of(attack: str, wrong: Sequence[str], limit: str, tried: int) -> Finding:
    """Each of `tried` must be well; `wrong` names those that are not."""
    if tried == 0:  # an attack that attacked nothing has shown nothing
        return Finding(attack, "nothing was tried", limit, False)
    if not wrong:
        return Finding(attack, f"0 of {tried}", limit, True)
    shown = "; ".join([it[:120] for it in dict.fromkeys(wrong)][:3])
    return Finding(attack, f"{len(wrong)} of {tried}: {shown}", limit, False)


def table(findings: Sequence[Finding]) -> str:
    """Markdown, so that it can stand in the README."""
    rows = [f"| {it.attack} | {it.seen} | {it.limit} | {it.verdict} |" for it in findings]
    broken = sum(not it.held for it in findings)
    return "\n".join(
        [
            "| attack | seen | limit | |",
            "|---|---|---|---|",
            *rows,
            "",
            f"{len(findings) - broken} held, {broken} broken.",
        ]
    )


def as_json(findings: Sequence[Finding]) -> str:
    """The same for machines."""
    return json.dumps({"findings": [asdict(it) for it in findings]}, indent=1, ensure_ascii=False) + "\n"


def exit_code(findings: Sequence[Finding]) -> int:
    """1 when something is broken, or nothing was attacked."""
    return 0 if findings and all(it.held for it in findings) else 1


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` of 100 do not exceed; the largest of few."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def times_tell(some: Sequence[float], others: Sequence[float]) -> bool:
    """Whether seconds of two kinds of request tell the kinds apart: by rank (Mann-Whitney), and by enough."""
    apart_s = abs(statistics.median(some) - statistics.median(others))
    return apart_s > _TELLING_S and abs(_rank_z(some, others)) > _CLEARLY_APART


def _rank_z(some: Sequence[float], others: Sequence[float]) -> float:
    wins = sum((a > b) + (a == b) / 2 for a in some for b in others)
    product = len(some) * len(others)
    return (wins - product / 2) / sqrt(product * (len(some) + len(others) + 1) / 12)


def _number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() or abs(value) >= 100 else f"{value:.2f}"
