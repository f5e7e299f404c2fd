import gc
import os
import select
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from lying_child import OPENED, frame, lying_command
from numpy.typing import NDArray

from encoders.errors import (
    MissingMpp,
    NoTissue,
    ReaderDied,
    ResolutionTooLow,
    SlideError,
    SlideTooLarge,
    UnreadableSlide,
    UnsupportedFormat,
)
from encoders.tiling.isolation.reader_process import ReaderLimits, ReaderProcess
from encoders.tiling.pictures.deep_zoom import DeepZoom, TilePlace
from encoders.tiling.pictures.view_pictures import ViewPictures, as_picture
from encoders.tiling.slide_readers.choose_reader import open_reader
from encoders.tiling.slide_readers.open_slide import OpenSlideReader
from encoders.tiling.slide_readers.slide_reader import Scale
from model_store.contracts.tile_encoder import TilingSpec

LIMITS = ReaderLimits(deadline_s=60)


def encode_outcome(path: Path, tiling: TilingSpec, mpp: float | None = None) -> int | type[Exception]:
    """How many tiles came, or the error that stood in their way; a folder of DICOM files is one slide."""
    folder = path.parent if path.parent.name.endswith("_dicom") else None
    try:
        with ReaderProcess(path, LIMITS, folder=folder) as reader:
            reader.plan(tiling, mpp)
            return sum(len(batch.pixels) for batch in reader.tiles(32))
    except SlideError as error:
        return type(error)


def all_pixels(reader: ReaderProcess, batch_tiles: int, first_tile: int = 0) -> NDArray[np.uint8]:
    return np.concatenate([batch.pixels.copy() for batch in reader.tiles(batch_tiles, first_tile)])


@pytest.mark.parametrize(
    ("name", "mpp", "outcome"),
    [
        ("cmu-1-small-region.svs", None, 49),
        ("tcga-cr-7395-ts1.svs", None, MissingMpp),
        ("tcga-cr-7395-ts1.svs", 0.5, 160),
        ("ospy_small.svs", None, NoTissue),
        ("ospy_boxes.tiff", None, MissingMpp),
        ("ospy_boxes.tiff", 0.25, NoTissue),
        ("ospy_boxes_dicom/boxes_0.dcm", None, NoTissue),
        ("ospy_boxes_dicom/boxes_1.dcm", None, NoTissue),
        ("ospy_unopenable.tiff", None, UnsupportedFormat),
        ("ospy_unreadable.svs", None, UnreadableSlide),
        ("histolab_broken.svs", None, UnsupportedFormat),
        ("truncated.svs", None, UnreadableSlide),
        ("made_corrupt_zeros_tail.svs", None, UnreadableSlide),
        ("largeimage_test_orient3.tif", None, MissingMpp),
        ("ezwsi_multiframe_camelyon.dcm", None, ResolutionTooLow),
        ("highdicom_sm_image.dcm", None, NoTissue),
        ("clam_CLAM1.tiff", None, UnsupportedFormat),
    ],
)
def test_every_shared_slide_gets_what_its_index_says(
    shared_slides: Path, tiling: TilingSpec, name: str, mpp: float | None, outcome: int | type[Exception]
) -> None:
    path = shared_slides / name
    if not path.exists():
        pytest.skip(f"{name} is not among the shared slides")

    assert encode_outcome(path, tiling, mpp) == outcome


def test_small_tiles_of_a_slide_with_broken_downsamples_are_read(shared_slides: Path) -> None:
    small = TilingSpec(
        target_mpp=2.0, tile_px=16, min_tissue_fraction=0.0, order="raster", tissue_rule="otsu-guarded-v2"
    )

    assert encode_outcome(shared_slides / "ospy_boxes.tiff", small, 0.5) == 11


def test_what_crosses_the_pipe_is_what_the_slide_holds(sample_slide: Path, tiling: TilingSpec) -> None:
    direct = OpenSlideReader(sample_slide, LIMITS)

    with ReaderProcess(sample_slide, LIMITS) as reader:
        facts = reader.facts()
        plan = reader.plan(tiling, None)
        pixels = all_pixels(reader, 5)
        png = reader.thumbnail(200, "png")
        jpeg = reader.thumbnail(200, "jpeg")
        last = DeepZoom(2048, 1536).level_count - 1
        tiles = [reader.view_tile(level, 0, 0) for level in (0, last - 1, last)]
        with pytest.raises(ValueError, match="no such tile"):
            reader.view_tile(last, 8, 0)
        own, half = reader.part(TilePlace(1, 300, 200, 700, 500)), reader.part(TilePlace(2, 0, 0, 1024, 768))
        for beyond in (TilePlace(1, 1400, 0, 700, 10), TilePlace(2, 0, 500, 10, 269)):
            with pytest.raises(ValueError, match="does not lie in the slide"):
                reader.part(beyond)
        chosen = (reader.kind, reader.reason)

    assert facts == direct.facts
    assert np.array_equal(own, direct.read_region(300, 200, 0, 700, 500))
    assert half.shape == (768, 1024, 3)
    reduced = direct.read_region(0, 0, 0, 2048, 1536).reshape(768, 2, 1024, 2, 3).mean(axis=(1, 3))
    assert np.abs(half - reduced).max() <= 1
    assert chosen == (open_reader(sample_slide, LIMITS).kind, open_reader(sample_slide, LIMITS).reason)
    expected = [direct.read_region(int(x), int(y), 0, 256, 256) for x, y in plan.coords]
    assert np.array_equal(pixels, np.stack(expected))
    pictures = ViewPictures(open_reader(sample_slide, LIMITS).reader, LIMITS)
    assert (png, jpeg) == tuple(as_picture(pictures.thumbnail(200), form) for form in ("png", "jpeg"))
    assert tiles == [pictures.tile_jpeg(level, 0, 0) for level in (0, last - 1, last)]


def test_tiles_are_read_again_from_any_first_one(sample_slide: Path, tiling: TilingSpec) -> None:
    with ReaderProcess(sample_slide, LIMITS) as reader:
        total = len(reader.plan(tiling, None).coords)
        whole = all_pixels(reader, 4)

        assert np.array_equal(all_pixels(reader, 3, first_tile=7), whole[7:])
        assert len(list(reader.tiles(5, first_tile=total))) == 0
        assert np.array_equal(all_pixels(reader, 1), whole)


def test_a_batch_is_a_read_only_view_that_outlives_its_reader(sample_slide: Path, tiling: TilingSpec) -> None:
    with ReaderProcess(sample_slide, LIMITS) as reader:
        reader.plan(tiling, None)
        (pixels,) = (batch.pixels for batch in reader.tiles(500))

    assert not pixels.flags.writeable
    assert pixels.std() > 0


def test_a_batch_that_no_slot_can_hold_is_refused_and_spends_nothing(sample_slide: Path, tiling: TilingSpec) -> None:
    with ReaderProcess(sample_slide, ReaderLimits(ring_bytes=2**20)) as reader:
        reader.plan(tiling, None)
        with pytest.raises(ValueError, match="6 tiles"):
            list(reader.tiles(6))

        assert len(all_pixels(reader, 5)) > 5


def test_without_sealed_memory_a_file_does(
    sample_slide: Path, tiling: TilingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ReaderProcess(sample_slide, LIMITS) as reader:
        reader.plan(tiling, None)
        expected = all_pixels(reader, 3)
    monkeypatch.delattr(os, "memfd_create", raising=False)

    with ReaderProcess(sample_slide, LIMITS) as reader:
        reader.plan(tiling, None)
        assert np.array_equal(all_pixels(reader, 3), expected)


def test_the_plan_says_how_its_tiles_are_reduced(sample_slide: Path, tiling: TilingSpec) -> None:
    by_decoder = tiling.model_copy(update={"reduction": "dct"})
    direct = open_reader(sample_slide, LIMITS).reader

    with ReaderProcess(sample_slide, LIMITS) as reader:
        plan = reader.plan(by_decoder, 0.25)
        first = next(reader.tiles(1)).pixels[0].copy()

    assert (plan.reduction, plan.read_px) == ("dct", 512)
    x, y = (int(value) for value in plan.coords[0])
    assert np.array_equal(first, direct.read_reduced(x, y, plan.level, 512, 512, Scale(2, "dct")))


def test_the_deadline_is_for_the_child_and_not_for_a_slow_parent(
    sample_slide: Path, tiling: TilingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = 0.0
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + late)
    monkeypatch.setattr("encoders.tiling.isolation.reader_channel.time", clock)
    with ReaderProcess(sample_slide, LIMITS) as reader:
        whole = len(reader.plan(tiling, None).coords)
        done = 0
        for batch in reader.tiles(1):
            done += len(batch.pixels)
            late += 10 * LIMITS.deadline_s

    assert done == whole


def test_nothing_stays_behind(sample_slide: Path, tiling: TilingSpec) -> None:
    descriptors, mapped = Path("/proc/self/fd"), Path("/proc/self/maps")
    if not descriptors.exists() or not hasattr(os, "memfd_create"):
        pytest.skip("this platform does not list what a process has open and mapped")
    before = len(list(descriptors.iterdir()))

    with ReaderProcess(sample_slide, LIMITS) as reader:
        reader.plan(tiling, None)
        for batch in reader.tiles(2):
            assert not batch.pixels.flags.owndata
            ring = [line for line in mapped.read_text().splitlines() if "memfd:eyepiece" in line]
            assert len(ring) == 1
            assert ring[0].endswith("/memfd:eyepiece-tiles (deleted)"), "it has no name that could be left behind"
    del batch
    with ReaderProcess(sample_slide, LIMITS) as reader:
        reader.plan(tiling, None)
        next(reader.tiles(2))
    with pytest.raises(ReaderDied):
        ReaderProcess(sample_slide, LIMITS, command=(sys.executable, "-c", "")).__enter__()
    with pytest.raises(FileNotFoundError):
        ReaderProcess(sample_slide, LIMITS, command=("no-such-program",)).__enter__()

    gc.collect()
    assert len(list(descriptors.iterdir())) == before
    assert "memfd:eyepiece" not in mapped.read_text()


def test_after_a_slides_error_the_same_reader_answers_on(sample_slide: Path, tiling: TilingSpec) -> None:
    with ReaderProcess(sample_slide, LIMITS) as reader:
        with pytest.raises(ResolutionTooLow):
            reader.plan(tiling, 1.0)

        assert len(reader.plan(tiling, None).coords) > 0


def test_leaving_reaps_the_child(sample_slide: Path) -> None:
    with ReaderProcess(sample_slide, LIMITS) as reader:
        pid = reader.pid
        assert pid is not None

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_failed_entry_leaves_no_child(tmp_path: Path) -> None:
    path = tmp_path / "text.svs"
    path.write_text("not a slide")
    reader = ReaderProcess(path, LIMITS)

    with pytest.raises(UnsupportedFormat):
        reader.__enter__()

    assert reader.pid is None


def test_a_killed_child_is_reader_died_and_stays_so(sample_slide: Path, tiling: TilingSpec) -> None:
    with ReaderProcess(sample_slide, LIMITS) as reader:
        assert reader.pid is not None
        os.kill(reader.pid, signal.SIGKILL)

        for _ in range(2):
            with pytest.raises(ReaderDied):
                reader.plan(tiling, None)


def test_a_child_killed_between_batches_is_reader_died(sample_slide: Path, tiling: TilingSpec) -> None:
    with ReaderProcess(sample_slide, LIMITS) as reader:
        reader.plan(tiling, None)
        batches = reader.tiles(1)
        next(batches)
        assert reader.pid is not None
        os.kill(reader.pid, signal.SIGKILL)

        with pytest.raises(ReaderDied):
            list(batches)


def test_a_child_that_stops_answering_is_killed_on_the_deadline(sample_slide: Path, tiling: TilingSpec) -> None:
    with ReaderProcess(sample_slide, ReaderLimits(deadline_s=3)) as reader:
        pid = reader.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)

        with pytest.raises(ReaderDied, match="no answer within 3 s"):
            reader.plan(tiling, None)

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_decoder_that_hangs_is_killed_on_the_deadline(sample_slide: Path, tiling: TilingSpec, tmp_path: Path) -> None:
    script = tmp_path / "hanging.py"
    script.write_text(HANGS_AFTER_THE_THIRD_TILE)
    limits = ReaderLimits(deadline_s=5, decode_threads=2)

    with ReaderProcess(sample_slide, limits, command=(sys.executable, "-P", str(script))) as reader:
        reader.plan(tiling, None)
        batches = reader.tiles(1)
        for _ in range(3):
            assert next(batches).pixels.any()
        with pytest.raises(ReaderDied, match="no answer within 5 s"):
            next(batches)

        assert reader.pid is None


HANGS_AFTER_THE_THIRD_TILE = """
import itertools, threading
# The plan looks at tiles too; imported first, it keeps the real function.
from encoders.tiling import plan_slide, read_tiles
from encoders.tiling.isolation import reader_child
count, read_tile = itertools.count(), read_tiles.read_tile
def hanging(*arguments, **named):
    if next(count) >= 3:
        threading.Event().wait()
    return read_tile(*arguments, **named)
read_tiles.read_tile = hanging
reader_child.main()
"""


def test_abandoned_tiles_spend_the_reader_instead_of_confusing_it(sample_slide: Path, tiling: TilingSpec) -> None:
    with ReaderProcess(sample_slide, LIMITS) as reader:
        reader.plan(tiling, None)
        batches = reader.tiles(1)
        next(batches)
        batches.close()  # type: ignore[attr-defined]

        assert reader.pid is None
        with pytest.raises(ReaderDied):
            reader.thumbnail(64, "png")


def test_a_reader_is_ended_from_another_thread_while_it_waits(tmp_path: Path) -> None:
    silent = lying_command(tmp_path, frame(OPENED), frame({"reply": "view_tile"}, b"")[:-2])  # half of an answer

    with ReaderProcess(Path("unread"), LIMITS, command=silent) as reader:
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(reader.view_tile, 0, 0, 0)
            assert not wait([waiting], 0.2).done
            reader.kill()
            with pytest.raises(ReaderDied):
                waiting.result(30)
        reader.kill()
        with pytest.raises(ReaderDied):
            reader.view_tile(0, 0, 0)


def test_too_little_memory_ends_the_child_not_the_parent(sample_slide: Path) -> None:
    starved = ReaderLimits(memory_bytes=150 * 2**20, deadline_s=60)

    with pytest.raises((ReaderDied, SlideTooLarge)), ReaderProcess(sample_slide, starved) as reader:
        reader.thumbnail(64, "png")


def test_the_child_gets_no_secret_and_no_path_on_its_command_line(
    sample_slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EYEPIECE_LLM_API_KEY", "secret-of-ours")

    with ReaderProcess(sample_slide, LIMITS) as reader:
        process = Path(f"/proc/{reader.pid}")
        if not process.exists():
            pytest.skip("this platform has no /proc")
        command = (process / "cmdline").read_bytes()
        started_with = reader_environment(process)

    assert b"sample.svs" not in command
    assert b"EYEPIECE" not in started_with


def reader_environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except PermissionError:
        pytest.skip("a process in its own user namespace hides its environment here")


def test_a_path_that_is_not_utf8_is_read(sample_slide: Path, tmp_path: Path) -> None:
    strange = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe \xe2\x98\x83.svs"))
    strange.write_bytes(sample_slide.read_bytes())

    with ReaderProcess(strange, LIMITS) as reader:
        assert reader.facts().width == 2048


def test_no_orphan_is_left_when_the_parent_is_killed(sample_slide: Path, tiling: TilingSpec) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(path=str(sample_slide))], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    watched = os.pidfd_open(child)

    parent.kill()
    parent.wait()
    parent.stdout.close()

    ended, _, _ = select.select([watched], [], [], 30)
    os.close(watched)
    assert ended, "the reader outlived its parent"


# The child is in the middle of reading ahead: its pipe is full and it waits for its parent.
PARENT = """
import threading
from pathlib import Path
from encoders.tiling.isolation.reader_process import ReaderLimits, ReaderProcess
from model_store.manifest import packaged_manifest
with ReaderProcess(Path({path!r}), ReaderLimits()) as reader:
    reader.plan(packaged_manifest("demo").first_input.tiling, None)
    batches = reader.tiles(1)
    next(batches)
    print(reader.pid, flush=True)
    threading.Event().wait()
"""


def test_importing_the_reader_loads_neither_torch_nor_the_parsers() -> None:
    script = "import sys, encoders.tiling.isolation.reader_process; print(*sys.modules)"

    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert {"torch", "cv2", "openslide"}.isdisjoint(result.stdout.split())
