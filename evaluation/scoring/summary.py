"""Numbers of groups of rows: both means, all reasons, intervals, and the paired difference to "as is"."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from evaluation.scoring.rows import EXACT, READ, Row
from evaluation.scoring.statistics import Interval, bootstrap_by_patient, wilson

ALL: Final = "all"
_SHARES: Final = (EXACT, READ)


@dataclass(frozen=True)
class Summary:
    """One metric of a group. `failures` are counted by reason; `mean_as_0` takes them as 0, `mean_without` leaves them
    out. `interval` is of `mean_as_0`: Wilson's for shares of right answers, else a bootstrap by patient.

    `gain` is what "as is" has more than this condition on the same rows, failures as 0, with its bootstrap by patient.
    """

    metric: str
    rows: int
    patients: int
    failures: dict[str, int]
    mean_as_0: float | None
    mean_without: float | None
    interval: Interval | None
    gain: float | None = None
    gain_interval: Interval | None = None
    gain_rows: int = 0

    @property
    def scored(self) -> int:
        """Rows with a value."""
        return self.rows - sum(self.failures.values())

    def as_document(self) -> dict[str, Any]:
        """For JSON and CSV; shares to six places."""
        return {
            "metric": self.metric,
            "rows": self.rows,
            "scored": self.scored,
            "patients": self.patients,
            "failures": self.failures,
            "mean_failures_as_0": _rounded(self.mean_as_0),
            "mean_without_failures": _rounded(self.mean_without),
            "low": _rounded(self.interval.low if self.interval else None),
            "high": _rounded(self.interval.high if self.interval else None),
            "as_is_minus_this": _rounded(self.gain),
            "as_is_minus_this_low": _rounded(self.gain_interval.low if self.gain_interval else None),
            "as_is_minus_this_high": _rounded(self.gain_interval.high if self.gain_interval else None),
            "as_is_minus_this_rows": self.gain_rows,
        }


def metrics_in(rows: Iterable[Row]) -> list[str]:
    """All metrics of these rows, in order of appearance."""
    return list(dict.fromkeys(name for row in rows for name in row.values))


def summarize(rows: Sequence[Row], metric: str, reference: Sequence[Row] = ()) -> Summary:
    """The numbers of a metric over all rows that have it. `reference` are the rows as is, to compare with. A
    question that has no other patient's slide was never put: it is counted and in neither mean."""
    having = [row for row in rows if metric in row.values]
    put = [row for row in having if row.values[metric].reason != "no_other_patient"]
    values = [row.values[metric].value for row in put]
    failures = Counter(row.values[metric].reason or "unknown" for row in having if row.values[metric].value is None)
    as_0 = [value or 0.0 for value in values]
    scored = [value for value in values if value is not None]
    patients = [row.item.patient for row in put]
    interval = (
        (wilson(round(sum(as_0)), len(as_0)) if metric in _SHARES else bootstrap_by_patient(as_0, patients))
        if as_0
        else None
    )
    gain, gain_interval, gain_rows = _gain(put, metric, reference)
    return Summary(
        metric,
        len(having),
        len(set(patients)),
        dict(sorted(failures.items())),
        sum(as_0) / len(as_0) if as_0 else None,
        sum(scored) / len(scored) if scored else None,
        interval,
        gain,
        gain_interval,
        gain_rows,
    )


def _gain(rows: Sequence[Row], metric: str, reference: Sequence[Row]) -> tuple[float | None, Interval | None, int]:
    as_is = {row.item.key: row.values[metric].value or 0.0 for row in reference if metric in row.values}
    pairs = [row for row in rows if row.item.key in as_is]
    if not pairs:
        return None, None, 0
    differences = [as_is[row.item.key] - (row.values[metric].value or 0.0) for row in pairs]
    interval = bootstrap_by_patient(differences, [row.item.patient for row in pairs])
    return sum(differences) / len(differences), interval, len(pairs)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
