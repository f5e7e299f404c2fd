"""`make fuzz`: damaged slides beyond those that the suite always looks at. The exit code is 1 when there is a finding.

A finding is named by slide, seed and index, which are all that a mutant depends on.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from fuzz_driver import KNOWN, Findings, FuzzedReader
from hostile_slides import drawn_slides
from mutate_slides import layout_of, mutate

# OpenSlide's GLib ends the process where malloc would return NULL: for a tile that claims to be larger than the memory,
# in a directory that only OpenSlide can read. About one mutant in 70,000; the worker lives on.
_SURRENDER = "failed to allocate"


def main(arguments: Sequence[str]) -> int:
    """Mutants of each slide in turn until the time is over, at least one of each."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--slide", type=Path, action="append", default=[], help="beside the drawn ones")
    options = parser.parse_args(arguments)
    slides = {**drawn_slides(), **{path.name: path.read_bytes() for path in options.slide}}
    findings = fuzz(slides, options.seed, time.monotonic() + 60 * options.minutes)
    print(f"seed {options.seed}, {findings.total // len(slides)} mutants of each of {len(slides)} slides")
    print(findings.summary())
    for kind in ("wrong_pixels", "bugs", "hung", "refused_alone"):
        print(f"{kind}: {getattr(findings, kind)}")
    return int(is_bad(findings))


def fuzz(slides: dict[str, bytes], seed: int, until: float) -> Findings:
    """What became of them."""
    layouts = {name: layout_of(slide) for name, slide in slides.items()}
    findings = Findings()
    with tempfile.TemporaryDirectory() as folder, FuzzedReader(Path(folder)) as reader:
        for index in count():
            for name, slide in slides.items():
                mutant = mutate(slide, layouts[name], (seed, index))
                findings.note(f"{name}, {seed}, {index}: {mutant.note}", reader.read(mutant, index))
            if time.monotonic() >= until:
                break
    return findings


def is_bad(findings: Findings) -> bool:
    """Whether something must not be; bugs and hangs are unknown outcomes."""
    crashed = [words for words in findings.died if _SURRENDER not in words]
    unknown = findings.outcomes.keys() - KNOWN - {"died"}
    return bool(findings.wrong_pixels or findings.refused_alone or crashed or unknown)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
