"""Planned tiles that show something else than tissue on glass at the detail that they should have."""

from collections.abc import Callable

import cv2
import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray

from encoders.tiling.doubt_tiles import doubt_detail, doubt_overview
from encoders.tiling.plan_tiles import AreaMask, TileScale, plan_tiles
from encoders.tiling.tissue.find_tissue import find_tissue
from encoders.tiling.tissue.read_overview import Overview
from encoders.types import SlideFacts
from model_store.manifest import packaged_manifest

TILING = packaged_manifest("demo").first_input.tiling
TILE_PX, PX_LEVEL0 = TILING.tile_px, TILING.tile_px / 16
GLASS = (242, 240, 243)
Picture = NDArray[np.uint8]


def slide(contrast: float = 1.0) -> Picture:
    """An overview of glass with a piece of tissue and a net of fat, RGB [400, 400, 3]."""
    rng = np.random.default_rng(8)
    picture = np.broadcast_to(np.array(GLASS, dtype=np.float64), (400, 400, 3)) + rng.normal(0, 0.5, (400, 400, 1))
    stain = np.array([200, 130, 175]) + rng.normal(0, 14, (150, 220, 1)) + rng.normal(0, 3, (150, 220, 3))
    picture[200:350, 120:340] = stain
    for at in range(0, 150, 12):
        picture[200 + at : 202 + at, 20:120] = picture[200:350, 20 + at * 2 // 3 : 22 + at * 2 // 3] = (218, 206, 212)
    return np.clip(GLASS + (picture - GLASS) * contrast, 0, 255).round().astype(np.uint8)


def doubts(rgb: Picture) -> list[str]:
    tissue = find_tissue(rgb)
    facts = SlideFacts("aperio", int(rgb.shape[1] * PX_LEVEL0), int(rgb.shape[0] * PX_LEVEL0), 0.5, None)
    mask, scale = AreaMask(tissue, PX_LEVEL0), TileScale(0, TILE_PX, TILE_PX)
    plan = plan_tiles(facts, scale, mask, TILING, mpp_override=None, max_tiles=10_000)
    warnings = list(doubt_overview(Overview(rgb, PX_LEVEL0), tissue, plan, TILING))
    assert all(it.code == "tissue_doubted" and len(it.detail) <= 300 for it in warnings)
    return [it.detail for it in warnings]


def line(colour: tuple[int, int, int], thickness: int, *, bent: bool = False) -> Callable[[Picture], Picture]:
    def draw(rgb: Picture) -> Picture:
        large = cv2.resize(rgb, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
        if bent:
            cv2.ellipse(large, (800, 360), (700, 250), 0, 0, 300, colour, thickness)
        else:
            cv2.line(large, (60, 200), (1_560, 240), colour, thickness)
        return np.asarray(cv2.resize(large, (400, 400), interpolation=cv2.INTER_AREA), dtype=np.uint8)

    return draw


def test_tissue_and_fat_on_glass_are_believed() -> None:
    assert doubts(slide()) == []
    assert doubts(slide(0.5)) == []


@pytest.mark.parametrize(
    "draw",
    [
        line((120, 118, 119), 8),
        line((45, 44, 46), 10),
        line((60, 91, 204), 8),
        line((30, 120, 60), 8, bent=True),
        line((45, 44, 46), 10, bent=True),
    ],
    ids=["coverslip", "black", "blue", "green, bent", "black, bent"],
)
def test_thin_lines_are_told_from_tissue(draw: Callable[[Picture], Picture]) -> None:
    (found,) = doubts(draw(slide()))

    assert "tiles show a thin line" in found


def test_a_stained_strip_is_tissue() -> None:
    assert doubts(line((205, 120, 175), 12)(slide())) == []


def test_tiles_of_a_region_cut_out_on_black_are_said() -> None:
    cut = slide()
    inside = np.zeros(cut.shape[:2], dtype=np.uint8)
    cv2.fillPoly(inside, [np.array([[130, 260], [230, 205], [330, 280], [220, 345]])], 1)
    cut[inside == 0] = 0

    (found,) = doubts(cut)
    assert "black by half or more" in found


def test_hardly_stained_tissue_is_said() -> None:
    (found,) = doubts(slide(0.2))

    assert "hardly darker or more coloured than glass" in found


def tiles(side: int = TILE_PX) -> list[Picture]:
    rng = np.random.default_rng(4)
    noise = sum(
        amplitude * cv2.resize(rng.normal(size=(side // cell + 2,) * 2), (side, side), interpolation=cv2.INTER_CUBIC)
        for amplitude, cell in ((12, 2), (14, 5), (20, 30))
    )
    stain = np.clip(np.array([195, 130, 180]) + noise[..., np.newaxis], 0, 255).astype(np.uint8)
    return [np.full_like(stain, 243), stain]


def compressed(tile: Picture, level: int = 90) -> Picture:
    stream = imagecodecs.jpeg8_encode(np.ascontiguousarray(tile), level=level, subsampling="420")
    return np.asarray(imagecodecs.jpeg8_decode(stream))


@pytest.mark.parametrize("repeat", [2, 3, 4])
@pytest.mark.parametrize("change", [np.asarray, compressed])
def test_pixels_that_come_several_times_are_seen(repeat: int, change: Callable[[Picture], Picture]) -> None:
    small = tiles(TILE_PX // repeat + 1)
    enlarged = [it.repeat(repeat, axis=0).repeat(repeat, axis=1)[:TILE_PX, :TILE_PX] for it in small]

    (found,) = doubt_detail([change(np.ascontiguousarray(it)) for it in enlarged])
    assert (found.code, f"Pixels come {repeat} × {repeat}" in found.detail) == ("detail_doubted", True)


@pytest.mark.parametrize("level", [30, 75, 95])
def test_what_is_compressed_smooth_or_blank_is_believed(level: int) -> None:
    sharp = tiles()
    smooth = [cv2.GaussianBlur(tile, (0, 0), 1.5) for tile in sharp]
    for some in (sharp, smooth, sharp[:1], []):
        assert list(doubt_detail([compressed(tile, level) for tile in some])) == []
