"""What the encodes of an ablation were like: tiles, slides that have fewer than the budget, seconds."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from evaluation.asking.reply_log import read_log
from evaluation.run_folder import AskedTarget, RunFolder

Encodes = dict[str, dict[str, Any]]


def encodes_of(folder: RunFolder, target: AskedTarget) -> Encodes:
    """By condition; empty for a target that was asked under no tile budget. Seconds are of the encodes that this run
    waited for: an embedding that was there already took none."""
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for line in read_log(folder.encodes_path(target.name)).values():
        lines.setdefault(line["condition"], []).append(line)
    return {condition: _summary(lines[condition]) for condition in target.conditions if condition in lines}


def _summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    tiles = [line["tiles"] for line in lines if line["tiles"] is not None]
    seconds = [line["encode_s"] for line in lines if line["encode_s"] is not None]
    return {
        "slides": len(lines),
        "median_tiles": median(tiles) if tiles else None,
        "slides_with_fewer_tiles": sum(line["tiles"] < line["budget"] for line in lines if line["tiles"] is not None),
        "median_encode_s": round(median(seconds), 3) if seconds else None,
        "encodes_timed": len(seconds),
    }
