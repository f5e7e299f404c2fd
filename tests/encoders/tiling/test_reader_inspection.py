"""What a reader process tells of a slide beyond its plan, and that a lying child is not believed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from lying_child import OPENED, frame, lying_command
from single_level_slide import write_single_level_slide

from encoders.errors import ReaderDied, UnreadableSlide
from encoders.tiling.isolation.reader_process import ReaderLimits, ReaderProcess
from encoders.tiling.isolation.reader_protocol import MAX_THUMBNAIL_PX, MIN_OVERLAY_PX
from encoders.tiling.pictures.inspection import SlideLevel
from encoders.tiling.pictures.thumbnail import as_png
from model_store.contracts.tile_encoder import TilingSpec

LIMITS = ReaderLimits(deadline_s=60)
LEVEL = {"width": 1024, "height": 1024, "downsample": 1.0, "tile_width": 256, "tile_height": 256}
INSPECTED = {"reply": "inspected", "tissue_share": 0.5, "pen_share": 0.0}
PNG = b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\rIHDR"
Liar = Callable[..., ReaderProcess]


@pytest.fixture
def liar(tmp_path: Path) -> Liar:
    def with_frames(*frames: bytes) -> ReaderProcess:
        return ReaderProcess(Path("unread"), ReaderLimits(deadline_s=30), command=lying_command(tmp_path, *frames))

    return with_frames


def decode(png: bytes | None) -> np.ndarray:
    assert png is not None
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def test_levels_are_the_pyramid_with_its_tiles(sample_slide: Path) -> None:
    with ReaderProcess(sample_slide, LIMITS) as reader:
        assert reader.levels() == (
            SlideLevel(2048, 1536, 1.0, (256, 256)),
            SlideLevel(512, 384, 4.0, (256, 256)),
        )


def test_shares_and_drawing_cross_the_pipe_and_the_reader_answers_on(tmp_path: Path, tiling: TilingSpec) -> None:
    path = tmp_path / "single.svs"
    write_single_level_slide(path)

    with ReaderProcess(path, LIMITS) as reader:
        seen = reader.inspect(tiling, None, 800)
        plain = reader.inspect(tiling, None)
        plan = reader.plan(tiling, None)

    picture = decode(seen.overlay_png)
    assert max(picture.shape[:2]) == 800
    assert (seen.tissue_share, seen.pen_share) == (plain.tissue_share, plain.pen_share)
    assert plain.overlay_png is None
    # A blot of ink of radius 1,000 px and a rectangle of tissue, on 6,144² px.
    assert seen.tissue_share == pytest.approx((np.pi * 1_000**2 + 2_048 * 1_536) / 6_144**2, rel=0.03)
    assert seen.pen_share == pytest.approx(0.5, abs=0.03)
    assert len(plan.coords) > 80


@pytest.mark.parametrize(
    ("name", "share", "width"), [("tcga-cr-7395-ts1.svs", 0.56, 640), ("ospy_small.svs", 0.0, 620)]
)
def test_a_slide_that_cannot_be_planned_is_looked_at_all_the_same(
    shared_slides: Path, tiling: TilingSpec, name: str, share: float, width: int
) -> None:
    with ReaderProcess(shared_slides / name, LIMITS) as reader:
        seen = reader.inspect(tiling, None, 640)

    assert seen.tissue_share == pytest.approx(share, abs=0.02)
    assert decode(seen.overlay_png).shape[1] == width


def test_a_slide_more_coarse_than_the_model_is_looked_at_too(sample_slide: Path, tiling: TilingSpec) -> None:
    with ReaderProcess(sample_slide, LIMITS) as reader:
        coarse, fine = reader.inspect(tiling, 3.0), reader.inspect(tiling, None)

    assert coarse.tissue_share == pytest.approx(fine.tissue_share, abs=0.05)


def test_a_damaged_slide_is_refused_naming_the_place(shared_slides: Path, tiling: TilingSpec) -> None:
    with (
        ReaderProcess(shared_slides / "made_corrupt_zeros_tail.svs", LIMITS) as reader,
        pytest.raises(UnreadableSlide, match="level-0 rectangle"),
    ):
        reader.inspect(tiling, None)


@pytest.mark.parametrize(
    "levels",
    [
        [],
        [LEVEL] * 65,
        [{**LEVEL, "width": 1023}],
        [{**LEVEL, "downsample": 2.0}],
        [{**LEVEL, "downsample": 0.5}],
        [{**LEVEL, "tile_width": -1}],
        [{**LEVEL, "tile_width": "256"}],
        [{**LEVEL, "name": "x"}],
        [LEVEL, {**LEVEL, "height": 2048}],
    ],
)
def test_impossible_levels_are_reader_died(liar: Liar, levels: list[dict[str, Any]]) -> None:
    with liar(frame(OPENED), frame({"reply": "levels", "levels": levels})) as reader, pytest.raises(ReaderDied):
        reader.levels()


@pytest.mark.parametrize(
    "reply",
    [
        frame({**INSPECTED, "tissue_share": 1.01}),
        frame({**INSPECTED, "tissue_share": -0.1}),
        frame({**INSPECTED, "pen_share": 2}),
        frame(b'{"reply":"inspected","tissue_share":NaN,"pen_share":0.0}'),
        frame({**INSPECTED, "note": "x"}),
        frame(INSPECTED, PNG),
        frame({"reply": "thumbnail"}),
    ],
)
def test_an_impossible_look_is_reader_died(liar: Liar, tiling: TilingSpec, reply: bytes) -> None:
    with liar(frame(OPENED), reply) as reader, pytest.raises(ReaderDied):
        reader.inspect(tiling, None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<svg onload=alert(1)>" * 10,
        as_png(np.zeros((64, 641, 3), np.uint8)),
        PNG + (64).to_bytes(4) + (0).to_bytes(4) + b"\x00" * 20,
        b"\x89PNG\r\n\x1a\n" + b"\x00" * 2_000_000,
    ],
)
def test_a_drawing_that_is_no_png_of_that_size_is_reader_died(liar: Liar, tiling: TilingSpec, body: bytes) -> None:
    with liar(frame(OPENED), frame(INSPECTED, body)) as reader, pytest.raises(ReaderDied):
        reader.inspect(tiling, None, 640)


@pytest.mark.parametrize("overlay_px", [MIN_OVERLAY_PX - 1, MAX_THUMBNAIL_PX + 1])
def test_a_drawing_of_an_absurd_size_is_not_asked_for(liar: Liar, tiling: TilingSpec, overlay_px: int) -> None:
    with liar(frame(OPENED)) as reader, pytest.raises(ValueError, match="overlay_px"):
        reader.inspect(tiling, None, overlay_px)
