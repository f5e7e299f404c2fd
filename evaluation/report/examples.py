"""Answers to look at: some that got all, some that got nothing, some that could not be read. Chosen by hash, not by
taste."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.asking.conditions import AS_IS
from evaluation.scoring.rows import READ, Row
from evaluation.scoring.score_run import NO_MODEL

EACH = 3


@dataclass(frozen=True)
class Example:
    """One row of a target, with the number that it was chosen by."""

    target: str
    verdict: str
    row: Row
    measured: str


def examples(rows: Mapping[tuple[str, str], Sequence[Row]], open_metric: str) -> list[Example]:
    """Some of each verdict of every target's answers as is."""
    found: list[Example] = []
    for (target, condition), all_of_it in rows.items():
        if condition != AS_IS or target == NO_MODEL:
            continue
        in_order = sorted(all_of_it, key=lambda row: hashlib.sha256(row.item.key.encode()).digest())
        closed = [row for row in in_order if READ in row.values]
        for verdict, value in (("right", 1.0), ("wrong", 0.0), ("unreadable", None)):
            chosen = [row for row in closed if row.values[READ].value == value][:EACH]
            found += [Example(target, f"closed, {verdict}", row, "") for row in chosen]
        scored = [row for row in in_order if open_metric in row.values and row.values[open_metric].value is not None]
        by_score = sorted(scored, key=lambda row: row.values[open_metric].value or 0.0)
        for verdict, some in (
            ("lowest", by_score[:EACH]),
            ("highest", by_score[-EACH:] if len(by_score) > EACH else []),
        ):
            found += [
                Example(target, f"open, {verdict}", row, f"{open_metric} {row.values[open_metric].value:.3f}")
                for row in some
            ]
    return found
