"""Writes results: one JSON file for each benchmark, with the machine that it was measured on."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from benchmarks.machine import machine, versions
from benchmarks.take_turns import Turns

# Ignored by git; what is worth keeping is copied one folder up by hand.
LOCAL = Path(__file__).parent / "results" / "local"


def write_result(name: str, content: Mapping[str, object], packages: Iterable[str]) -> Path:
    """Writes `<name>.json` into the folder of local results, and says where."""
    LOCAL.mkdir(parents=True, exist_ok=True)
    path = LOCAL / f"{name}.json"
    whole = {"benchmark": name, "machine": machine(), "versions": versions(packages), **content}
    path.write_text(json.dumps(whole, indent=1) + "\n")
    return path


def turns_record(turns: Turns) -> dict[str, object]:
    """Every round of every method, rounded to what a clock can tell."""
    costs = {
        name: [{key: round(value, 6) for key, value in asdict(cost).items()} for cost in costs]
        for name, costs in turns.costs.items()
    }
    return {"costs": costs, "spin_shares": [round(share, 3) for share in turns.spin_shares]}


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [list(header), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
