"""Whole tiling pipelines over one slide: ours, and those of others where a checkout is given.

    python -m benchmarks.peer_pipelines --gigapath prov-gigapath --trident TRIDENT

Every run is a process of its own. They do not make the same thing: prov-gigapath writes a PNG for each tile, TRIDENT
gives PIL images or arrays and its tissue segmentation is left out, ours gives arrays.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from benchmarks.peer_pipeline_run import Job, Pipeline, Run
from benchmarks.synthetic_slides import FOLDER, synthetic_slide
from benchmarks.write_results import table, write_result

# The second is not for prov-gigapath, which would take some 50 GB for it.
SLIDE, LONG_SLIDE = "pow2small", "pow2"
NAMES: dict[Pipeline, str] = {
    "eyepiece": "eyepiece: start, plan, tiles",
    "eyepiece_tiles": "eyepiece: tiles",
    "gigapath": "prov-gigapath process_slide",
    "trident_pil": "TRIDENT WSIPatcher, PIL",
    "trident_numpy": "TRIDENT WSIPatcher, numpy",
}
PACKAGES = ("simplejpeg", "openslide-bin", "openslide-python", "pillow", "numpy", "monai", "scipy", "scikit-image")


class PipelineFailed(Exception):
    """A pipeline of others did not run to its end; the sentence says which and how."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is there, print the table, write the JSON."""
    options = _parser().parse_args(arguments)
    for sentence in absent(options):
        print(sentence, file=sys.stderr)
    found = {SLIDE: measure(synthetic_slide(SLIDE, options.folder), chosen(options), options.rounds)}
    if options.long:
        large = chosen(options)
        large.pop("gigapath", None)
        found[LONG_SLIDE] = measure(synthetic_slide(LONG_SLIDE, options.folder), large, options.rounds)
    print("\n\n".join(f"{slide}\n\n{report(runs)}" for slide, runs in found.items()))
    runs = {
        slide: {name: [asdict(one) for one in runs] for name, runs in by_name.items()}
        for slide, by_name in found.items()
    }
    print(f"\n{write_result('peer_pipelines', {'runs': runs}, PACKAGES)}")


def measure(slide: Path, pipelines: Mapping[Pipeline, str | None], rounds: int) -> dict[Pipeline, list[Run]]:
    """In turns; a pipeline of others that fails is left out, with a sentence."""
    found: dict[Pipeline, list[Run]] = {name: [] for name in pipelines}
    for _ in range(rounds):
        for name in list(found):
            try:
                found[name].append(run(Job(name, str(slide), pipelines[name])))
            except PipelineFailed as error:
                print(error, file=sys.stderr)
                del found[name]
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigapath", type=Path, help="a checkout of prov-gigapath/prov-gigapath")
    parser.add_argument("--trident", type=Path, help="a checkout of mahmoodlab/TRIDENT")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where slides are kept (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--long", action="store_true", help="also on 60,000 × 50,000 px, without prov-gigapath")
    return parser


def chosen(options: argparse.Namespace) -> dict[Pipeline, str | None]:
    """What to run, and from where."""
    pipelines: dict[Pipeline, str | None] = {"eyepiece": None, "eyepiece_tiles": None}
    if options.gigapath is not None:
        pipelines["gigapath"] = str(options.gigapath)
    if options.trident is not None:
        pipelines |= {"trident_pil": str(options.trident), "trident_numpy": str(options.trident)}
    return pipelines


def absent(options: argparse.Namespace) -> list[str]:
    """A sentence for each that is not there."""
    given = {"prov-gigapath": options.gigapath, "TRIDENT": options.trident}
    return [
        f"{name} is not measured: give a checkout with --{name.removeprefix('prov-').lower()}."
        for name, checkout in given.items()
        if checkout is None
    ]


def run(job: Job) -> Run:
    """One process; raises PipelineFailed with the last line of what it said."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.peer_pipeline_run", json.dumps(asdict(job))]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    if ended.returncode != 0:
        said = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        raise PipelineFailed(f"{NAMES[job.pipeline]} is left out, it failed: {said[-1]}")
    return Run(**json.loads(ended.stdout.strip().splitlines()[-1]))


def report(found: dict[Pipeline, list[Run]]) -> str:
    """Medians over the rounds, and how many times as many tiles ours reads per CPU second."""
    ours = median(one.tiles / one.cpu_s for one in found["eyepiece_tiles"])
    rows = []
    for pipeline, runs in found.items():
        rate = median(one.tiles / one.cpu_s for one in runs)
        wall = median(one.wall_s for one in runs)
        memory = median(one.peak_mb for one in runs)
        times = f"{ours / rate:.1f}"
        rows.append((NAMES[pipeline], str(runs[0].tiles), f"{rate:.0f}", f"{wall:.1f}", f"{memory:.0f}", times))
    return table(("pipeline", "tiles", "tiles/CPU-s", "wall s", "peak MB", "our tiles are faster by"), rows)


if __name__ == "__main__":
    main()
