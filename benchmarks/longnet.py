"""Time and memory of the slide encoder at its published size, beside the published code when a checkout is given.

    python -m benchmarks.longnet --reference prov-gigapath --json longnet.json

Every run is a process of its own; ours and the reference take turns, so that both see the same machine. The
reference gets PyTorch's CPU attention kernel in the place of FlashAttention (published_slide_encoder.py).
"""

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch

from benchmarks.longnet_run import Job, Run
from benchmarks.published_slide_encoder import COMMIT

PUBLISHED = "published"
MEASURES = {
    "build_s": "build s",
    "build_mb": "build MB",
    "wall_s": "forward s",
    "cpu_s": "CPU s",
    "forward_mb": "forward MB",
    "peak_mb": "process MB",
}


@dataclass(frozen=True)
class Comparison:
    """All runs of one model at one length, in the order in which they were made."""

    name: str
    tiles: int
    runs: list[Run]

    def middle(self, measure: str) -> float:
        """The median of a measure over the runs."""
        return float(median(getattr(run, measure) for run in self.runs))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON if asked to."""
    options = _parser().parse_args(arguments)
    if options.reference is None:
        print("The published code is not measured: give a checkout of prov-gigapath with --reference.")
    compared = [found for tiles in options.tiles for found in _compare(tiles, options)]
    print(_table(compared))
    if options.json:
        options.json.write_text(json.dumps(_record(compared, options), indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="a checkout of prov-gigapath; needs einops")
    parser.add_argument("--tiles", type=int, nargs="+", default=[10_000])
    parser.add_argument("--depth", type=int, default=12, help="layers; the cost of a layer is the same in all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32", help="of ours")
    parser.add_argument("--json", type=Path, help="where to write every run, with versions")
    return parser


def _compare(tiles: int, options: argparse.Namespace) -> list[Comparison]:
    """Ours and, if there is a checkout, the reference, in turns."""
    checkouts: dict[str, str | None] = {f"eyepiece {options.dtype}": None}
    if options.reference is not None:
        checkouts[PUBLISHED] = str(options.reference)
    found = {name: Comparison(name, tiles, []) for name in checkouts}
    for _ in range(options.rounds):
        for name, checkout in checkouts.items():
            found[name].runs.append(_run(Job(checkout, tiles, options.depth, options.dtype)))
    return list(found.values())


def _run(job: Job) -> Run:
    command = [sys.executable, "-m", "benchmarks.longnet_run", json.dumps(asdict(job))]
    return Run(**json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def _table(compared: list[Comparison]) -> str:
    """Medians; under each published row our share of it; below the table how far the class tokens lie apart."""
    rows = ["| tiles | model | " + " | ".join(MEASURES.values()) + " |", "|---" * (2 + len(MEASURES)) + "|"]
    notes = []
    for before, comparison in zip([compared[0], *compared], compared, strict=False):
        rows.append(_row(comparison.tiles, comparison.name, [comparison.middle(measure) for measure in MEASURES]))
        if comparison.name == PUBLISHED:
            shares = [before.middle(measure) / comparison.middle(measure) for measure in MEASURES]
            rows.append(_row(comparison.tiles, "ours / published", shares))
            notes.append(f"{before.tiles} tiles: class tokens differ by at most {_distance(before, comparison):.1e}.")
    return "\n".join([*rows, *notes])


def _row(tiles: int, name: str, values: list[float]) -> str:
    return f"| {tiles} | {name} | " + " | ".join(f"{value:.3g}" for value in values) + " |"


def _distance(ours: Comparison, published: Comparison) -> float:
    pairs = zip(ours.runs[0].cls, published.runs[0].cls, strict=True)
    return max(abs(a - b) for a, b in pairs)


def _record(compared: list[Comparison], options: argparse.Namespace) -> dict[str, object]:
    return {
        "reference": f"prov-gigapath/prov-gigapath@{COMMIT}" if options.reference else None,
        "depth": options.depth,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "system": platform.platform()},
        "threads": torch.get_num_threads(),
        "medians": [
            {"tiles": found.tiles, "model": found.name, **{measure: found.middle(measure) for measure in MEASURES}}
            for found in compared
        ],
        "runs": [
            {"tiles": found.tiles, "model": found.name, **asdict(run)} for found in compared for run in found.runs
        ],
    }


if __name__ == "__main__":
    main()
