"""Plots as SVG: for every group a model's value as is with its interval, and what needs no look at the slide."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from evaluation.asking.conditions import AS_IS, BLANK, NO_SLIDE, WRONG, WRONG_SAME
from evaluation.report.pick import Number, Numbers, free_baseline
from evaluation.scoring.score_run import NO_MODEL

_LEFT: Final = 250
_WIDTH: Final = 560
_ROW: Final = 22
# Told apart without colour too: what looked at the slide is filled, what did not is a mark of its own shape.
COLOURS: Final = ("#1f5fa8", "#c2571a", "#3c7d3f", "#7b4fa3", "#8a6d00", "#555555")
_BLIND: Final = (NO_SLIDE, BLANK)
LEGEND: Final = (
    ("dot", "as is, with its 95 % interval"),
    ("ring", "blind: no slide, or a blank one"),
    ("cross", "another patient's slide"),
    ("tick", "another patient's slide of the same project"),
    ("dash", "no model: best constant, or another patient's reference of the same project"),
)


@dataclass(frozen=True)
class Mark:
    """A shape at a value."""

    shape: str
    value: float
    title: str


def plot(numbers: Numbers, by: str, metric: str) -> str:
    """An SVG with a row for every group and target; "" where nothing has the metric."""
    groups = numbers.groups(by, metric)
    rows: list[str] = []
    y = 8
    for group in groups:
        lines = [(target, _line(numbers, target, by, group, metric)) for target in numbers.targets]
        there = [(target, line) for target, line in lines if line is not None]
        if not there:
            continue
        rows.append(_label(4, y + 12, group, "group"))
        for target, line in there:
            colour = COLOURS[numbers.targets.index(target) % len(COLOURS)]
            y += _ROW
            rows.append(_label(16, y + 10, f"{target} (n {line['rows']})", "target"))
            rows.append(_row(y + 6, colour, line, _marks(numbers, target, by, group, metric)))
        y += _ROW + 6
    if not rows:
        return ""
    height = y + 26
    return (
        f'<svg viewBox="0 0 {_LEFT + _WIDTH + 30} {height}" role="img" aria-label="{escape(metric)} by {escape(by)}">'
        f"{_axis(height)}{''.join(rows)}</svg>"
    )


def legend() -> str:
    """The shapes and what they mean."""
    drawn = "".join(
        f'<svg class="key" viewBox="0 0 20 16">{_shape(shape, 10, 8, "#333333", "")}</svg><span>{escape(text)}</span>'
        for shape, text in LEGEND
    )
    return f'<p class="legend">{drawn}</p>'


def _line(numbers: Numbers, target: str, by: str, group: str, metric: str) -> Number | None:
    line = numbers.find(target, AS_IS, by, group, metric)
    return line if line is not None and line["mean_failures_as_0"] is not None else None


def _marks(numbers: Numbers, target: str, by: str, group: str, metric: str) -> Sequence[Mark]:
    shapes = [*((name, "ring") for name in _BLIND), (WRONG, "cross"), (WRONG_SAME, "tick")]
    found: list[tuple[str, str, str]] = [(target, condition, shape) for condition, shape in shapes]
    found.append((NO_MODEL, free_baseline(metric), "dash"))
    marks: list[Mark] = []
    for whose, condition, shape in found:
        line = numbers.find(whose, condition, by, group, metric)
        if line is not None and line["mean_failures_as_0"] is not None:
            value = line["mean_failures_as_0"]
            marks.append(Mark(shape, value, f"{condition}: {value:.3f} of {line['rows']}"))
    return marks


def _row(y: int, colour: str, line: Number, marks: Sequence[Mark]) -> str:
    value = line["mean_failures_as_0"]
    drawn = [f'<line x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{y}" y2="{y}" stroke="#e4e4e4"/>']
    if line["low"] is not None:
        ends = f'x1="{_x(line["low"])}" x2="{_x(line["high"])}" y1="{y}" y2="{y}"'
        drawn.append(f'<line {ends} stroke="{colour}" stroke-width="3"/>')
    drawn += [_shape(mark.shape, _x(mark.value), y, colour, mark.title) for mark in marks]
    drawn.append(_shape("dot", _x(value), y, colour, f"as is: {value:.3f} of {line['rows']}"))
    return "".join(drawn)


def _shape(shape: str, x: float, y: int, colour: str, title: str) -> str:
    tip = f"<title>{escape(title)}</title>" if title else ""
    stroke = f'stroke="{colour}" stroke-width="2" fill="none"'
    match shape:
        case "dot":
            return f'<circle cx="{x}" cy="{y}" r="5" fill="{colour}">{tip}</circle>'
        case "ring":
            return f'<circle cx="{x}" cy="{y}" r="4" {stroke}>{tip}</circle>'
        case "cross":
            lines = f"M{x - 4} {y - 4}L{x + 4} {y + 4}M{x - 4} {y + 4}L{x + 4} {y - 4}"
            return f'<path d="{lines}" {stroke}>{tip}</path>'
        case "tick":
            return f'<path d="M{x} {y - 7}L{x} {y + 7}" {stroke}>{tip}</path>'
        case _:
            grey = 'stroke="#777777" stroke-width="2" stroke-dasharray="3 2"'
            return f'<path d="M{x} {y - 8}L{x} {y + 8}" {grey}>{tip}</path>'


def _axis(height: int) -> str:
    ticks = [value / 10 for value in range(0, 11, 2)]
    return "".join(
        f'<line x1="{_x(t)}" x2="{_x(t)}" y1="4" y2="{height - 20}" stroke="#eeeeee"/>'
        f'<text x="{_x(t)}" y="{height - 6}" text-anchor="middle" class="axis">{t:g}</text>'
        for t in ticks
    )


def _label(x: int, y: int, text: str, name: str) -> str:
    return f'<text x="{x}" y="{y}" class="{name}">{escape(text)}</text>'


def _x(value: float) -> float:
    return round(_LEFT + _WIDTH * min(1.0, max(0.0, value)), 1)
