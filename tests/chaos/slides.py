"""The slides of a run."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from synthetic.write_slide import write_sample_slide


@dataclass(frozen=True)
class Slides:
    """Paths by slide id, in the order of the plan: those that are to get ready (the last ones spare), the poisoned."""

    sound: dict[str, Path]
    poisoned: dict[str, Path]


def draw_slides(folder: Path, seeds: Sequence[int], poisoned: int, side_px: int) -> Slides:
    """A slide a seed, all different; the last `poisoned` of them are to be poisoned, and have four times the tiles:
    on a fast machine too they take longer than it takes to see that one is being read."""
    folder.mkdir()
    paths = [folder / f"{seed}.svs" for seed in seeds]
    sound = len(paths) - poisoned
    for number, (seed, path) in enumerate(zip(seeds, paths, strict=True)):
        side = side_px if number < sound else 2 * side_px
        write_sample_slide(path, seed=seed, width_px=side, height_px=side)
    return Slides(_by_id(paths[:sound]), _by_id(paths[sound:]))


def _by_id(paths: Sequence[Path]) -> dict[str, Path]:
    return {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in paths}
