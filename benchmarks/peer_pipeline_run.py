"""One tiling pipeline over one slide, measured, in a process of its own; benchmarks/peer_pipelines.py starts it.

    python -m benchmarks.peer_pipeline_run '{"pipeline": "eyepiece", "slide": "slide.tiff", "checkout": null}'

Prints one JSON object, a `Run`, as the last line.
"""

import atexit
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.process_counters import cpu_s, peak_mb
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.isolation.reader_process import ReaderProcess
from model_store.contracts.tile_encoder import TilingSpec

Pipeline = Literal["eyepiece", "eyepiece_tiles", "gigapath", "trident_pil", "trident_numpy"]

TILE_PX, TARGET_MPP, LEAST_TISSUE = 256, 0.5, 0.1
_BATCH_TILES = 64
_TILING = TilingSpec(
    target_mpp=TARGET_MPP,
    tile_px=TILE_PX,
    min_tissue_fraction=LEAST_TISSUE,
    order="raster",
    tissue_rule="otsu-guarded-v2",
)


@dataclass(frozen=True)
class Job:
    """Which pipeline, over which slide; of others the folder that holds their package."""

    pipeline: Pipeline
    slide: str
    checkout: str | None


@dataclass(frozen=True)
class Spent:
    """Tiles delivered, and what child processes took: CPU seconds, and their peak in 10^6 bytes."""

    tiles: int
    children_cpu_s: float = 0.0
    children_peak_mb: float = 0.0


@dataclass(frozen=True)
class Run:
    """All processes together; imports are not counted. `peak_mb` includes what the imported libraries take."""

    tiles: int
    cpu_s: float
    wall_s: float
    peak_mb: float


def measure(job: Job) -> Run:
    """Imports first, then the clock starts."""
    work = _PREPARE[job.pipeline](job)
    wall, cpu = time.perf_counter(), time.process_time()
    spent = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Run(spent.tiles, cpu + spent.children_cpu_s, wall, peak_mb() + spent.children_peak_mb)


def _open_until_exit(reader: ReaderProcess) -> ReaderProcess:
    """Enters it now and leaves it when this process ends."""
    entered = reader.__enter__()
    atexit.register(reader.__exit__, None, None, None)
    return entered


def _eyepiece(job: Job) -> Callable[[], Spent]:
    """The reader process started, tissue found, tiles planned, decoded and copied out of shared memory."""

    def work() -> Spent:
        with ReaderProcess(Path(job.slide), ReaderLimits()) as reader:
            reader.plan(_TILING, None)
            return Spent(_take(reader), *_of_child(reader))

    return work


def _eyepiece_tiles(job: Job) -> Callable[[], Spent]:
    """Of this only the tiles: what is left when start and plan are shared by many more of them."""
    reader = _open_until_exit(ReaderProcess(Path(job.slide), ReaderLimits()))
    reader.plan(_TILING, None)
    before, _ = _of_child(reader)

    def work() -> Spent:
        tiles = _take(reader)
        after, peak = _of_child(reader)
        return Spent(tiles, after - before, peak)

    return work


def _take(reader: ReaderProcess) -> int:
    done = 0
    staging = np.empty((_BATCH_TILES, TILE_PX, TILE_PX, 3), dtype=np.uint8)
    for batch in reader.tiles(_BATCH_TILES):
        staging[: len(batch.pixels)] = batch.pixels
        done += len(batch.pixels)
    return done


def _of_child(reader: ReaderProcess) -> tuple[float, float]:
    """CPU seconds and peak of memory so far."""
    assert reader.pid is not None, "the child lives as long as the context"
    return cpu_s(reader.pid), peak_mb(reader.pid)


def _gigapath(job: Job) -> Callable[[], Spent]:
    """`process_slide` as it stands: tissue by Otsu, a whole level in memory, a PNG per tile, three figures."""
    _import_from(job)
    boxes = import_module("gigapath.preprocessing.data.box_utils")
    create_tiles = import_module("gigapath.preprocessing.data.create_tiles_dataset")
    # Today's scipy refuses the bool array that it is given.
    boxes.ndimage = SimpleNamespace(find_objects=_of_integers(boxes.ndimage.find_objects))  # type: ignore[attr-defined]
    level = _level_at_target(job.slide)

    def work() -> Spent:
        with tempfile.TemporaryDirectory() as folder:
            sample = {"image": job.slide, "slide_id": "slide", "metadata": {}}
            tiles = create_tiles.process_slide(
                sample,
                level=level,
                margin=0,
                tile_size=TILE_PX,
                foreground_threshold=None,
                occupancy_threshold=LEAST_TISSUE,
                output_dir=Path(folder) / "tiles",
                thumbnail_dir=Path(folder) / "thumbnails",
            )
            return Spent(len(list(Path(tiles).glob("*.png"))))

    return work


def _trident(job: Job, *, pil: bool) -> Callable[[], Spent]:
    """WSIPatcher over our plan's corners: its own tissue segmentation needs weights."""
    # Beside a CPU build of torch only our own import makes torchvision's possible.
    import_module("encoders.tile_encoder.torchvision_ops")
    _import_from(job)
    trident = import_module("trident")
    coords = _planned_corners(Path(job.slide))

    def work() -> Spent:
        wsi = trident.OpenSlideWSI(slide_path=job.slide, lazy_init=False)
        patcher = trident.WSIPatcher(
            wsi,
            patch_size=TILE_PX,
            src_pixel_size=wsi.mpp,
            dst_pixel_size=TARGET_MPP,
            custom_coords=coords,
            pil=pil,
        )
        return Spent(sum(np.asarray(tile).shape == (TILE_PX, TILE_PX, 3) for tile, _, _ in patcher))

    return work


_PREPARE: dict[Pipeline, Callable[[Job], Callable[[], Spent]]] = {
    "eyepiece": _eyepiece,
    "eyepiece_tiles": _eyepiece_tiles,
    "gigapath": _gigapath,
    "trident_pil": partial(_trident, pil=True),
    "trident_numpy": partial(_trident, pil=False),
}


def _import_from(job: Job) -> None:
    assert job.checkout is not None, "the pipelines of others are run from a checkout"
    sys.path.insert(0, job.checkout)


def _of_integers(find_objects: Callable[..., Any]) -> Callable[..., Any]:
    return lambda mask: find_objects(mask.astype(np.int32))


def _level_at_target(slide: str) -> int:
    openslide = import_module("openslide")
    opened = openslide.OpenSlide(slide)
    mpp = float(opened.properties[openslide.PROPERTY_NAME_MPP_X])
    return int(np.argmin([abs(mpp * downsample - TARGET_MPP) for downsample in opened.level_downsamples]))


def _planned_corners(slide: Path) -> NDArray[np.int64]:
    with ReaderProcess(slide, ReaderLimits()) as reader:
        return reader.plan(_TILING, None).coords


if __name__ == "__main__":
    print(json.dumps(asdict(measure(Job(**json.loads(sys.argv[1]))))))
