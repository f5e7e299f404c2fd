"""Children that lie: whatever they send, the parent raises ReaderDied, keeps its memory, and lives."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from lying_child import frame, lying_command

from encoders.errors import NoTissue, ReaderDied
from encoders.tiling.reader_process import ReaderLimits, ReaderProcess
from model_store.manifest import TilingSpec

LIMITS = ReaderLimits(deadline_s=30, max_tiles=100, max_dimension_px=10_000)
OPENED = {
    "reply": "opened",
    "vendor": "aperio",
    "width": 1024,
    "height": 1024,
    "mpp": 0.5,
    "objective_power": 20.0,
    "degraded": [],
}
PLANNED = {"reply": "planned", "level": 0, "read_px": 256, "tile_px_level0": 256.0, "tile_count": 2}
Liar = Callable[..., ReaderProcess]


def coords(*corners: tuple[int, int]) -> bytes:
    return b"".join(value.to_bytes(8, "little", signed=True) for corner in corners for value in corner)


@pytest.fixture
def liar(tmp_path: Path) -> Liar:
    def with_frames(*frames: bytes, waits: bool = True) -> ReaderProcess:
        return ReaderProcess(Path("unread"), LIMITS, command=lying_command(tmp_path, *frames, waits=waits))

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
        frame({**OPENED, "vendor": "../../etc"}),
        frame({**OPENED, "vendor": "a" * 1_000}),
        frame({**OPENED, "degraded": ["x"] * 1_000}),
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
        frame({"reply": "tiles", "first": 0, "count": 2}, b"\x00" * 1_000),
        frame({"reply": "tiles", "first": 1, "count": 2}, b"\x00" * (2 * 256 * 256 * 3)),
        frame({"reply": "tiles", "first": 0, "count": 1}, b"\x00" * (2 * 256 * 256 * 3)),
        frame({"reply": "tiles", "first": 0, "count": 2}, b"\x00" * (2 * 256 * 256 * 3 + 1)),
        frame({"reply": "tiles", "first": 0.0, "count": 2}, b"\x00" * (2 * 256 * 256 * 3)),
    ],
)
def test_a_wrong_batch_is_reader_died(liar: Liar, reply: bytes, tiling: TilingSpec) -> None:
    with liar(frame(OPENED), frame(PLANNED, coords((0, 0), (256, 0))), reply) as reader:
        reader.plan(tiling, None)
        with pytest.raises(ReaderDied):
            list(reader.tiles(8))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<svg onload=alert(1)>" * 10,
        b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\rIHDR" + (65).to_bytes(4) + (64).to_bytes(4) + b"\x00" * 20,
        b"\x89PNG\r\n\x1a\n" + b"\x00" * 100_000,
    ],
)
def test_a_thumbnail_that_is_no_png_of_that_size_is_reader_died(liar: Liar, body: bytes) -> None:
    with liar(frame(OPENED), frame({"reply": "thumbnail"}, body)) as reader, pytest.raises(ReaderDied):
        reader.thumbnail_png(64)


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
