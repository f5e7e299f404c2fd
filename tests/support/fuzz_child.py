"""Run as a script: reads damaged slides, one a line, and says what became of each. It may die; that is the point.

line in  = {"path": …, "level0_xy": [x, y] | null, "seed": n}
line out = {"outcome": "tiles" or a SlideError's code, "kind": …, "regions": n, …}
"""

import json
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from encoders.errors import SlideError, SlideTooLarge
from encoders.tiling.isolation.limit_process import limit_process
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.slide_readers.choose_reader import open_reader
from encoders.tiling.slide_readers.color_conflict import ColorConflict
from encoders.tiling.slide_readers.container_colors import check_container_colors
from encoders.tiling.slide_readers.open_slide import OpenSlideReader
from encoders.tiling.slide_readers.slide_reader import Scale, SlideReader

LIMITS = ReaderLimits()
# A level up to this side is read whole, of a larger one a few windows.
_WHOLE_PX, _WINDOW_PX, _MOST_LEVELS = 512, 256, 8
Region = tuple[int, int, int, int, int]


def main() -> None:
    """Answers until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # parsers print
    limit_process(LIMITS, os.getppid())
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(_said(request)), file=answers, flush=True)


def _said(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return examine(Path(request["path"]), request["level0_xy"], request["seed"])
    except SlideError as error:
        return {"outcome": error.code}
    except MemoryError:  # as in answer_requests
        return {"outcome": SlideTooLarge.code}
    except Exception:  # noqa: BLE001 - any other exception is what is being looked for
        return {"outcome": "bug", "bug": traceback.format_exc(limit=-3)}


def examine(path: Path, level0_xy: tuple[int, int] | None, seed: int) -> dict[str, Any]:
    """Reads parts of every level; with the fast reader also through OpenSlide, which has the last word."""
    chosen = open_reader(path, LIMITS)
    oracle = OpenSlideReader(path, LIMITS) if chosen.kind == "fast_tiff" else None
    found: dict[str, Any] = {"outcome": "tiles", "kind": chosen.kind, "reason": chosen.reason}
    found |= {"regions": 0, "wrong": [], "refused": 0, "refused_alone": 0}
    for region in _regions(chosen.reader, level0_xy, np.random.default_rng(seed)):
        pixels = _read(chosen.reader, region)
        found["regions"] += 1
        found["refused"] += pixels is None
        if oracle is not None:
            expected = _read(oracle, region)
            found["refused_alone"] += pixels is None and expected is not None
            found["wrong"] += _wrong(region, pixels, expected)
            if min(region[3:]) > 1:  # a level may be one pixel wide
                # The mean over whole pixels of what OpenSlide reads, whatever the reader takes for it.
                halved = None if expected is None else _halved(expected)
                found["wrong"] += _wrong(region, _read_halved(chosen.reader, region), halved)
    _read_the_rest(chosen.reader)
    if (found["wrong"] or found["refused_alone"]) and _denies_its_directory(path, chosen.reader.facts.vendor):
        found |= {"wrong": [], "refused_alone": 0, "own_colours": 1}
    return found


def _denies_its_directory(path: Path, vendor: str) -> bool:
    """Whether a tile says that it has other colours: OpenSlide does not look, so it is no measure of them."""
    try:
        check_container_colors(path, vendor)
    except ColorConflict:
        return True
    return False


def _read_the_rest(reader: SlideReader) -> None:
    """What else is asked of a reader; only that it answers or refuses."""
    level = reader.levels[-1]
    reader.tile_bytes(len(reader.levels) - 1)
    with suppress(SlideError):
        reader.read_reduced(
            0, 0, len(reader.levels) - 1, min(level.width, 512), min(level.height, 512), Scale(4, "dct")
        )


def _regions(reader: SlideReader, level0_xy: tuple[int, int] | None, random: np.random.Generator) -> list[Region]:
    """(x, y, level, width, height), on whole pixels of the level, some of them beyond the edge."""
    regions = []
    for index, level in enumerate(reader.levels[:_MOST_LEVELS]):
        x, y = (int(random.integers(side)) * round(level.downsample) for side in (level.width, level.height))
        regions.append((x, y, index, 100, 90))
        if max(level.width, level.height) <= _WHOLE_PX:
            regions.append((0, 0, index, level.width, level.height))
        elif level0_xy is not None:
            regions.append((*level0_xy, index, _WINDOW_PX, _WINDOW_PX))
    return regions


def _read(reader: SlideReader, region: Region) -> NDArray[np.uint8] | None:
    try:
        return reader.read_region(*region)
    except SlideError:
        return None


def _read_halved(reader: SlideReader, region: Region) -> NDArray[np.uint8] | None:
    x, y, level, width, height = region
    try:
        return reader.read_reduced(x, y, level, width // 2 * 2, height // 2 * 2, Scale(2, "area"))
    except SlideError:
        return None


def _halved(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = (side // 2 for side in pixels.shape[:2])
    even = pixels[: 2 * height, : 2 * width]
    return np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _wrong(
    region: Region, pixels: NDArray[np.uint8] | None, expected: NDArray[np.uint8] | None
) -> list[tuple[Region, str | int]]:
    """What is read where it should have been refused, or differs; refusing more is another matter."""
    if pixels is None or (expected is not None and np.array_equal(pixels, expected)):
        return []
    return [(region, "refused" if expected is None else _difference(pixels, expected))]


def _difference(pixels: NDArray[np.uint8], expected: NDArray[np.uint8]) -> int:
    return int(np.abs(pixels.astype(int) - expected).max())


if __name__ == "__main__":
    main()
