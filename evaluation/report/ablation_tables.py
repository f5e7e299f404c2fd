"""Tables of the report's section on ablations."""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.report.pick import Numbers, shown_metrics
from evaluation.report.table import Table, mean_text, mean_with_margin
from evaluation.scoring.summary import ALL


def ablation_tables(document: Mapping[str, Any], numbers: Numbers) -> list[tuple[Table, Sequence[str]]]:
    """Each with its notes: a table for every model that was ablated and every shown metric; then how well metrics tell
    right answers from those about another slide; then what was written by commands that ask nobody."""
    tables: list[tuple[Table, Sequence[str]]] = [
        (table, _NOTES)
        for target in numbers.ablated
        for metric in shown_metrics(numbers)
        if (table := _lacking(document, numbers, target, metric)).rows
    ]
    if document["metric_comparison"]:
        tables.append((_told_apart(document["metric_comparison"]), _TOLD_APART_NOTES))
    tables += [(Table(kept["title"], kept["head"], kept["rows"]), kept["notes"]) for kept in document["ablations"]]
    return tables


_NOTES = (
    "The loss is as is minus this, paired on the same questions, with a bootstrap by patient. Where its interval "
    "reaches 0 nothing was shown to be lost; where no question has an answer yet, nothing is said.",
    "Tiles and seconds are medians over slides, seconds from the request to the ready slide; a slide with fewer tiles "
    "than the budget loses nothing.",
)
_TOLD_APART_NOTES = (
    "The model's answer about the slide against its answer about another patient's of the same project: the chance "
    "that a right-slide answer gets more than a wrong-slide one (AUC over all pairs), and the share of questions where "
    "it does (half where both get the same). Half is chance. Where both slides show the same, both answers are right, "
    "so no metric reaches 1.",
)


def _lacking(document: Mapping[str, Any], numbers: Numbers, target: str, metric: str) -> Table:
    encodes = document["ablated_encodes"].get(target, {})
    rows = []
    for condition in document["targets"][target]["conditions"]:
        line = numbers.find(target, condition, "all", ALL, metric)
        if line is None:
            continue
        made = encodes.get(condition, {})
        fewer = f"{made['slides_with_fewer_tiles']} of {made['slides']}" if made else ""
        rows.append(
            [
                condition,
                "",
                str(line["rows"]),
                str(sum(line["failures"].values())),
                mean_with_margin(line) if line["scored"] else "–",
                _loss(line) if line["scored"] else "",
                _number(made.get("median_tiles"), "{:,.0f}"),
                fewer,
                _number(made.get("median_encode_s"), "{:.1f}"),
            ]
        )
    head = ("slide", "", "n", "failed", "mean", "loss", "tiles", "slides with fewer", "encode s")
    return Table(f"{target}: {metric}", head, rows)


def _loss(line: Mapping[str, Any]) -> str:
    if line["as_is_minus_this"] is None:
        return ""
    text = f"{line['as_is_minus_this']:+.3f}"
    if line["as_is_minus_this_low"] is None:
        return text
    return f"{text} ({line['as_is_minus_this_low']:+.2f}–{line['as_is_minus_this_high']:+.2f})"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _told_apart(lines: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            line["metric"],
            line["target"],
            str(line["rows"]),
            mean_text(line["auc"]),
            f"{line['wins']:.3f}"
            + ("" if line["wins_low"] is None else f" ({line['wins_low']:.2f}–{line['wins_high']:.2f})"),
        ]
        for line in sorted(lines, key=lambda line: (line["target"], -line["auc"]))
    ]
    return Table(
        "Metrics: right slide against another of the same project", ("metric", "model", "n", "AUC", "wins"), rows
    )
