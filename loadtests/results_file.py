"""Writes results: a table on the terminal, and one JSON file for each load test with its machine."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import quantiles

from benchmarks.machine import machine, versions

# Ignored by git; what is worth keeping is copied into the README by hand.
LOCAL = Path(__file__).parent / "results" / "local"
PACKAGES = (
    "eyepiece",
    "uvicorn",
    "uvloop",
    "httptools",
    "fastapi",
    "httpx",
    "redis",
    "orjson",
    "torch",
    "transformers",
)


def write_result(name: str, content: Mapping[str, object]) -> Path:
    """Writes `<name>.json` into the folder of local results, and says where."""
    LOCAL.mkdir(parents=True, exist_ok=True)
    path = LOCAL / f"{name}.json"
    whole = {"load_test": name, "machine": machine(), "versions": versions(PACKAGES), **content}
    path.write_text(json.dumps(whole, indent=1) + "\n")
    return path


def percentile(values: Sequence[float], percent: int) -> float:
    """Between the values that are there; the largest where there are too few to tell."""
    if len(values) < 100 // (100 - percent):
        return max(values)
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def verdict(met: bool) -> str:
    """In a sentence about a target."""
    return "met" if met else "MISSED"
