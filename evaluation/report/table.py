"""The table of a run: for each model and group its value beside every line that needs no look at the slide."""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.asking.conditions import AS_IS, PARAPHRASED
from evaluation.report.pick import CONDITION_ORDER, METRIC_TITLES, Number, Numbers
from evaluation.scoring.baselines import BASELINES
from evaluation.scoring.score_run import NO_MODEL
from evaluation.scoring.summary import ALL


@dataclass(frozen=True)
class Table:
    """`rows` are texts, the first of each a group, the second a model."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """For a terminal."""
        widths = [max(map(len, column)) for column in zip(self.head, *self.rows, strict=True)]
        lines = []
        for row in (self.head, *self.rows):
            left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
            right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
            lines.append("  ".join([*left, *right]).rstrip())
        return "\n".join([self.title, *lines])


def main_table(numbers: Numbers, metric: str) -> Table:
    """All rows, then by group of tasks. Means count failures as 0, with the interval as is; the gain is as is minus the
    highest line of the same model without the right slide, on the same rows."""
    lines = [name for name in CONDITION_ORDER if any(metric in _of(numbers, t, name, metric) for t in numbers.targets)]
    free = [name for name in BASELINES if numbers.find(NO_MODEL, name, "all", ALL, metric)]
    head = ["", "", "n", "failed", *lines, "gain over the best blind line", *(f"no model: {name}" for name in free)]
    rows: list[list[str]] = []
    for by in ("all", "group"):
        for group in numbers.groups(by, metric):
            for target in numbers.targets:
                as_is = numbers.find(target, AS_IS, by, group, metric)
                if as_is is None:
                    continue
                found = [numbers.find(target, name, by, group, metric) for name in lines]
                frees = [numbers.find(NO_MODEL, name, by, group, metric) for name in free]
                failed = sum(as_is["failures"].values())
                cells = [mean_with_margin(as_is), *(_mean(line) for line in found[1:])]
                rows.append([group, target, str(as_is["rows"]), str(failed), *cells, _gain(found), *map(_mean, frees)])
    return Table(METRIC_TITLES[metric], head, rows)


def _of(numbers: Numbers, target: str, condition: str, metric: str) -> Sequence[str]:
    return [metric] if numbers.find(target, condition, "all", ALL, metric) else []


def _mean(line: Number | None) -> str:
    return mean_text(None if line is None else line["mean_failures_as_0"])


def mean_text(value: float | None) -> str:
    """Three places, or a dash for nothing."""
    return "–" if value is None else f"{value:.3f}"


def mean_with_margin(line: Number) -> str:
    """The mean, failures as 0, with its interval where there is one."""
    if line["low"] is None:
        return _mean(line)
    return f"{_mean(line)} ({line['low']:.2f}–{line['high']:.2f})"


def _gain(found: Sequence[Number | None]) -> str:
    """Over the line without the right slide that is highest: the smallest gain."""
    blind = [line for line in found if line is not None and line["condition"] not in (AS_IS, PARAPHRASED)]
    gains = [line for line in blind if line["as_is_minus_this"] is not None]
    if not gains:
        return "–"
    least = min(gains, key=lambda line: float(line["as_is_minus_this"]))
    text = f"{least['as_is_minus_this']:+.3f}"
    if least["as_is_minus_this_low"] is not None:
        text += f" ({least['as_is_minus_this_low']:+.2f}–{least['as_is_minus_this_high']:+.2f})"
    return text
