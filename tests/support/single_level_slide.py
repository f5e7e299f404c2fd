"""A JPEG slide without a pyramid, large but quickly drawn: glass with noise, tissue, broad ink, a black frame."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

SIDE_PX, TILE_PX, MPP = 6_144, 256, 0.5
# A level-0 rectangle (left, top, right, bottom) of whole tiles, and a blot (x, y, radius) that tiles cut anywhere.
TISSUE = (2_560, 2_048, 4_608, 3_584)
INK = (1_500, 4_700, 1_000)
FRAME_RIGHT_OF = 5_888
GLASS_RGB, INK_RGB = (238, 236, 240), (60, 91, 204)


def write_single_level_slide(path: Path) -> None:
    """About a second of drawing."""
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            _tiles(),
            shape=(SIDE_PX, SIDE_PX, 3),
            dtype=np.uint8,
            tile=(TILE_PX, TILE_PX),
            photometric="rgb",
            subsampling=(2, 2),
            compression="jpeg",
            compressionargs={"level": 85},
            description=f"Aperio Image Library v12.0.0\r\n{SIDE_PX}x{SIDE_PX} Q=85|AppMag = 20|MPP = {MPP}",
            metadata=None,
            software=False,
            maxworkers=1,
        )


def _tiles() -> Iterator[NDArray[np.uint8]]:
    glass, ink, tissue = (_variants(seed, colour) for seed, colour in enumerate([GLASS_RGB, INK_RGB, None]))
    black = np.zeros((TILE_PX, TILE_PX, 3), dtype=np.uint8)
    for y in range(0, SIDE_PX, TILE_PX):
        for x in range(0, SIDE_PX, TILE_PX):
            choice = (x // TILE_PX + 3 * (y // TILE_PX)) % 4
            if x >= FRAME_RIGHT_OF:
                yield black
            elif TISSUE[0] <= x < TISSUE[2] and TISSUE[1] <= y < TISSUE[3]:
                yield tissue[choice]
            else:
                yield np.where(_blot(x, y)[..., np.newaxis], ink[choice], glass[choice])


def _blot(x: int, y: int) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[y : y + TILE_PX, x : x + TILE_PX]
    return np.asarray((columns - INK[0]) ** 2 + (rows - INK[1]) ** 2 < INK[2] ** 2)


def _variants(seed: int, colour: tuple[int, int, int] | None) -> list[NDArray[np.uint8]]:
    """Four tiles of a colour with a scanner's noise; without a colour, of something like tissue."""
    rng = np.random.default_rng(seed)
    tiles = []
    for _ in range(4):
        if colour is None:
            coarse = rng.uniform(0.0, 1.0, (32, 32, 1)).astype(np.float32)
            mix = cv2.resize(coarse, (TILE_PX, TILE_PX), interpolation=cv2.INTER_CUBIC)[..., np.newaxis]
            field = (1 - mix) * np.array([225, 170, 205]) + mix * np.array([110, 70, 150])
        else:
            field = np.broadcast_to(np.array(colour, dtype=np.float64), (TILE_PX, TILE_PX, 3))
        tiles.append(np.clip(field + rng.normal(0, 1.2, field.shape), 0, 255).round().astype(np.uint8))
    return tiles
