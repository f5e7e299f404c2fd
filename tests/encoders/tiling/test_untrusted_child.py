"""Children that lie: whatever they send, the parent raises ReaderDied, keeps its memory, and lives."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from lying_child import OPENED, frame, lying_command

from encoders.errors import NoTissue, ReaderDied
from encoders.tiling.isolation.reader_process import ReaderLimits, ReaderProcess
from encoders.tiling.pictures.deep_zoom import TilePlace
from encoders.tiling.pictures.thumbnail import as_png
from encoders.types import SlideWarning
from model_store.contracts.tile_encoder import TilingSpec

LIMITS = ReaderLimits(deadline_s=30, max_tiles=100, max_dimension_px=10_000)
PLANNED = {"reply": "planned", "level": 0, "read_px": 256, "tile_px_level0": 256.0, "tile_count": 2, "warnings": []}
DOUBT = {"code": "mpp_contradicted", "detail": "Two resolutions."}
TILES = {"reply": "tiles", "first": 0, "count": 2, "slot": 0}
Liar = Callable[..., ReaderProcess]


def coords(*corners: tuple[int, int]) -> bytes:
    return b"".join(value.to_bytes(8, "little", signed=True) for corner in corners for value in corner)


TWO_TILES = frame(PLANNED, coords((0, 0), (256, 0)))


@pytest.fixture
def liar(tmp_path: Path) -> Liar:
    def with_frames(*frames: bytes, limits: ReaderLimits = LIMITS, **how: Any) -> ReaderProcess:
        return ReaderProcess(Path("unread"), limits, command=lying_command(tmp_path, *frames, **how))

    return with_frames


@pytest.mark.parametrize(
    "reply",
    [
        b"\xff" * 64,
        (2**31).to_bytes(4) + (0).to_bytes(4),
        (10).to_bytes(4) + (2**32 - 1).to_bytes(4),
        frame(b"not json"),
        frame(b"[" * 10_000),
        frame(b"{}"),
        frame(OPENED, b"an unasked body"),
        frame({**OPENED, "reply": "planned"}),
        frame({**OPENED, "extra": 1}),
        frame({**OPENED, "width": 0}),
        frame({**OPENED, "width": -5}),
        frame({**OPENED, "width": "1024"}),
        frame({**OPENED, "width": 20_000}),
        frame({**OPENED, "height": 10**30}),
        frame({**OPENED, "mpp": 0.0}),
        frame(json.dumps({**OPENED, "mpp": float("nan")}).encode()),
        frame(json.dumps({**OPENED, "mpp": float("inf")}).encode()),
        frame({**OPENED, "reader": "fastslide"}),
        frame({**OPENED, "reader_reason": "Doe^Jane"}),
        frame({**OPENED, "vendor": "../../etc"}),
        frame({**OPENED, "vendor": "a" * 1_000}),
        frame({**OPENED, "degraded": ["x"] * 1_000}),
        frame({**OPENED, "warnings": [DOUBT] * 17}),
        frame({**OPENED, "warnings": [{**DOUBT, "code": "Doe^Jane"}]}),
        frame({**OPENED, "warnings": [{**DOUBT, "detail": "x" * 301}]}),
        frame({"reply": "failed", "code": "internal_error", "detail": "a code that no slide has"}),
        frame({"reply": "failed", "code": "no_tissue", "detail": "two\nlines"}),
        frame({"reply": "failed", "code": "no_tissue", "detail": "x" * 10_000}),
        frame(PLANNED),
    ],
)
def test_an_impossible_first_answer_is_reader_died(liar: Liar, reply: bytes) -> None:
    reader = liar(reply)

    with pytest.raises(ReaderDied):
        reader.__enter__()

    assert reader.pid is None


def test_a_child_that_ends_at_once_is_reader_died(liar: Liar) -> None:
    with pytest.raises(ReaderDied):
        liar(waits=False).__enter__()


def test_half_a_frame_is_reader_died(liar: Liar) -> None:
    with pytest.raises(ReaderDied):
        liar(frame(OPENED)[:20], waits=False).__enter__()


def test_a_failure_it_may_report_is_raised_as_such(liar: Liar) -> None:
    with pytest.raises(NoTissue, match="Nothing here"):
        liar(frame({"reply": "failed", "code": "no_tissue", "detail": "Nothing here."})).__enter__()


def test_doubts_of_the_file_and_of_the_plan_cross_the_pipe(liar: Liar, tiling: TilingSpec) -> None:
    opened, planned = {**OPENED, "warnings": [DOUBT]}, {**PLANNED, "warnings": [DOUBT, DOUBT]}
    doubt = SlideWarning("mpp_contradicted", "Two resolutions.")

    with liar(frame(opened), frame(planned, coords((0, 0), (256, 0)))) as reader:
        assert reader.facts().warnings == (doubt,)
        assert reader.plan(tiling, None).warnings == (doubt, doubt)


@pytest.mark.parametrize(
    "reply",
    [
        frame(PLANNED, coords((0, 0))),
        frame({**PLANNED, "tile_count": 101}, coords(*[(0, 0)] * 101)),
        frame({**PLANNED, "tile_count": 0}),
        frame(PLANNED, coords((256, 0), (0, 0))),
        frame(PLANNED, coords((0, 256), (0, 0))),
        frame(PLANNED, coords((0, 0), (0, 0))),
        frame(PLANNED, coords((-256, 0), (0, 0))),
        frame(PLANNED, coords((0, 0), (900, 0))),
        frame(PLANNED, coords((0, 0), (2**62, 0))),
        frame({**PLANNED, "tile_px_level0": 5.0}, coords((0, 0), (256, 0))),
        frame({**PLANNED, "level": -1}, coords((0, 0), (256, 0))),
        frame({**PLANNED, "warnings": [DOUBT] * 17}, coords((0, 0), (256, 0))),
        frame({**PLANNED, "read_px": 10**9}, coords((0, 0), (256, 0))),
        frame({"reply": "thumbnail"}, b"\x89PNG\r\n\x1a\n"),
    ],
)
def test_an_impossible_plan_is_reader_died(liar: Liar, reply: bytes, tiling: TilingSpec) -> None:
    with liar(frame(OPENED), reply) as reader, pytest.raises(ReaderDied):
        reader.plan(tiling, None)


@pytest.mark.parametrize(
    "reply",
    [
        frame({**TILES, "first": 1}),
        frame({**TILES, "first": 0.0}),
        frame({**TILES, "count": 1}),
        frame({**TILES, "count": 0}),
        frame({**TILES, "count": 9}),
        frame({**TILES, "slot": 1}),
        frame({**TILES, "slot": -1}),
        frame({**TILES, "slot": 10**9}),
        frame({"reply": "tiles", "first": 0, "count": 2}),
        frame(TILES, b"\x00" * (2 * 256 * 256 * 3)),
        frame(PLANNED, coords((0, 0), (256, 0))),
    ],
)
def test_a_wrong_batch_is_reader_died(liar: Liar, reply: bytes, tiling: TilingSpec) -> None:
    with liar(frame(OPENED), TWO_TILES, reply) as reader:
        reader.plan(tiling, None)
        with pytest.raises(ReaderDied):
            list(reader.tiles(8))


def test_a_slot_claimed_out_of_order_is_reader_died(liar: Liar, tiling: TilingSpec) -> None:
    second = {**TILES, "first": 1, "count": 1}
    both = frame({**TILES, "count": 1}) + frame({**second, "slot": 0})
    with liar(frame(OPENED), TWO_TILES, both) as reader:
        reader.plan(tiling, None)
        batches = reader.tiles(1)
        next(batches)
        with pytest.raises(ReaderDied, match="impossible"):
            next(batches)


@pytest.mark.parametrize(
    "attempt",
    [
        "os.ftruncate(memory, 0)",
        "os.ftruncate(memory, 2**40)",
        "os.truncate(f'/proc/self/fd/{memory}', 0)",
        "os.close(os.open(f'/proc/self/fd/{memory}', os.O_RDWR | os.O_TRUNC))",
        "fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)",
    ],
)
def test_the_child_cannot_take_the_memory_away_from_the_parent(liar: Liar, attempt: str, tiling: TilingSpec) -> None:
    if not hasattr(os, "memfd_create"):
        pytest.skip("this platform has no sealed memory")
    trick = f"try: {attempt}\nexcept PermissionError: pass\nelse: sys.exit(1)"

    with liar(frame(OPENED), TWO_TILES, frame(TILES), trick=trick) as reader:
        reader.plan(tiling, None)
        (pixels,) = (batch.pixels for batch in reader.tiles(8))

        assert int(pixels.sum()) == 0


def test_a_slot_written_after_it_was_announced_changes_no_copy_and_harms_nobody(liar: Liar, tiling: TilingSpec) -> None:
    scribble = "mapped = mmap.mmap(memory, 2**20); mapped[:] = bytes([seen]) * 2**20; seen += 1"
    trick = f'seen = 1 if request["ask"] == "tiles" else seen\n{scribble}'
    frames = [frame({**TILES, "count": 1}), frame({**TILES, "first": 1, "count": 1})]

    with liar(frame(OPENED), TWO_TILES, *frames, trick=trick, limits=replace(LIMITS, ring_slots=1)) as reader:
        reader.plan(tiling, None)
        batches = reader.tiles(1)
        first = next(batches).pixels
        copy = first.copy()
        second = next(batches).pixels

    assert (copy == 1).all()
    assert (second == 2).all()
    assert np.shares_memory(first, second) or (first == 2).all()


def test_a_child_that_announces_all_and_reads_nothing_cannot_block_the_parent(liar: Liar, tiling: TilingSpec) -> None:
    many = 20_000  # their releases are several times what a pipe holds
    slide = {**OPENED, "width": 256 * 100, "height": 256 * 200}
    corners = [(256 * (index % 100), 256 * (index // 100)) for index in range(many)]
    announced = b"".join(frame({"reply": "tiles", "first": i, "count": 1, "slot": 0}) for i in range(many))
    limits = ReaderLimits(deadline_s=3, max_tiles=many, ring_slots=1)

    planned = frame({**PLANNED, "tile_count": many}, coords(*corners))
    with liar(frame(slide), planned, announced, limits=limits) as reader:
        reader.plan(tiling, None)
        with pytest.raises(ReaderDied, match="within 3 s"):
            list(reader.tiles(1))


FITTING_PNG = as_png(np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<svg onload=alert(1)>" * 10,
        as_png(np.zeros((64, 65, 3), np.uint8)),
        FITTING_PNG[:-1],
        FITTING_PNG + b"<script>",
        FITTING_PNG[:33] + b"\x00\x00\x00\x08tEXtDoe^Jane\x00\x00\x00\x00" + FITTING_PNG[33:],
        b"\x89PNG\r\n\x1a\n" + b"\xff" * 100,
        b"\x89PNG\r\n\x1a\n" + b"\x00" * 100_000,
    ],
)
def test_a_thumbnail_that_is_no_png_of_that_size_is_reader_died(liar: Liar, body: bytes) -> None:
    with liar(frame(OPENED), frame({"reply": "thumbnail"}, body)) as reader, pytest.raises(ReaderDied):
        reader.thumbnail(64, "png")


JPEG = simplejpeg.encode_jpeg(np.zeros((256, 256, 3), np.uint8))
WITH_TEXT = JPEG[:2] + b"\xff\xfe\x00\x0aDoe^Jane" + JPEG[2:]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<svg onload=alert(1)>" * 10,
        b"\x89PNG\r\n\x1a\n" + b"\x00" * 100_000,
        JPEG[:-2],
        JPEG + b"<script>",
        WITH_TEXT,
        JPEG[:2] + JPEG[-2:],
        JPEG[:2] + b"\xff\xc0\x00\x04\x08\x01" + JPEG[-2:],
        simplejpeg.encode_jpeg(np.zeros((256, 255, 3), np.uint8)),
        simplejpeg.encode_jpeg(np.zeros((256, 256, 1), np.uint8), colorspace="GRAY"),
        JPEG[:2] + b"\x00" * 400_000 + JPEG[2:],
    ],
)
def test_a_tile_that_is_no_jpeg_of_its_size_is_reader_died(liar: Liar, body: bytes) -> None:
    with liar(frame(OPENED), frame({"reply": "view_tile"}, body)) as reader, pytest.raises(ReaderDied):
        reader.view_tile(10, 0, 0)


@pytest.mark.parametrize("body", [b"", bytes(10 * 8 * 3 - 1), bytes(10 * 8 * 3 + 1)])
def test_a_part_of_other_size_is_reader_died(liar: Liar, body: bytes) -> None:
    with liar(frame(OPENED), frame({"reply": "part"}, body)) as reader, pytest.raises(ReaderDied):
        reader.part(TilePlace(1, 0, 0, 10, 8))


def test_an_honest_part_is_taken(liar: Liar) -> None:
    with liar(frame(OPENED), frame({"reply": "part"}, bytes(range(240)))) as reader:
        assert reader.part(TilePlace(1, 0, 0, 10, 8)).tobytes() == bytes(range(240))


def test_an_honest_thumbnail_is_taken(liar: Liar) -> None:
    with liar(frame(OPENED), frame({"reply": "thumbnail"}, FITTING_PNG)) as reader:
        assert reader.thumbnail(64, "png") == FITTING_PNG


def test_an_honest_tile_is_taken(liar: Liar) -> None:
    with liar(frame(OPENED), frame({"reply": "view_tile"}, JPEG)) as reader:
        assert reader.view_tile(10, 0, 0) == JPEG


def test_refused_limits_are_counted_in_the_log_and_not_quoted(liar: Liar, caplog: pytest.LogCaptureFixture) -> None:
    with liar(frame({**OPENED, "degraded": ["Doe^Jane", "The reader is not cut off from the network."]})):
        pass

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.records[0].getMessage().endswith(": 2")
    assert "Doe" not in caplog.text


def test_a_fully_limited_reader_logs_nothing(liar: Liar, caplog: pytest.LogCaptureFixture) -> None:
    with liar(frame(OPENED)):
        pass

    assert caplog.records == []
