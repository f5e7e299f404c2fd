"""The kind `hierarchical`: regions through all levels of MLLM-HWSI, and its projector. It reads the slide itself.

What a worker's memory is, beside the networks: for each slide in hand the regions of the reader's ring (50 MB each as
published), the maps of at most three regions whose cells are looked for (16 MB each), and what is kept of every region:
58 kB and its cells.
"""

import copy
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.errors import EncoderOverflowed
from encoders.hierarchical.choose_patches import choose_patches
from encoders.hierarchical.conch import ConchImage
from encoders.hierarchical.encode import CPU_PASSES, PICTURE_PX, HierarchicalEncoder, StartedRegion
from encoders.hierarchical.levels import KeptLevels
from encoders.hierarchical.levels_file import write_levels
from encoders.hierarchical.networks import Networks, empty_networks
from encoders.hierarchical.region_levels import RegionLevels, join_regions, levels_of_region, levels_of_slide
from encoders.hierarchical.region_parts import RegionWriter, load_regions
from encoders.load_weights import TORCH_DTYPES, load_weights
from encoders.precomputed.given_features import GivenLevels, GivenTiles
from encoders.slide_encoder.encode import trying_twice
from encoders.slide_stages.slide_stage import Ask, SlideInHand, SlideStage, Tensors, go_on
from encoders.tile_encoder.cpu_features import fit_threads_to_quota
from encoders.tile_encoder.tissue_like_tiles import tissue_like_tiles
from encoders.tiling.isolation.decode_threads import decode_threads_here
from encoders.types import MppSource, TilePlan
from model_store.contracts.hierarchical import Hierarchical
from model_store.contracts.slide_rows import ROWS

log = logging.getLogger(__name__)

REGION_XY: Final = "region_xy"
PATCH_INDEX: Final = "patch_index"
# Pictures that CONCH and ViT-256, and CellViT, are given at once.
_PASSES: Final = {"cpu": CPU_PASSES, "cuda": (128, 16)}
# Regions whose cells are looked for while the device is at later ones.
_REGIONS_AHEAD: Final = 2
# More would wait for the device.
_MOST_CELL_THREADS: Final = 8
# Networks that are computed in the manifest's dtype; CellViT has its own, the projector is float32.
_HALVED: Final = ("vit256", "vit4k", "conch", "cell_fusion")
# Of CellViT's maps, 2.6 MB a picture, the golden vector keeps every so many pixels along a side.
_GOLDEN_STEP: Final = 8
# Pictures of the gate's region: as many as a published one of 16 x 16 has.
_GATE_PICTURES: Final = 256


@dataclass(frozen=True)
class ReadRegions:
    """What is kept of a slide's regions, all of them."""

    plan: TilePlan
    levels: RegionLevels

    @property
    def tile_count(self) -> int:
        """Regions."""
        return len(self.plan.coords)

    @property
    def mpp_source(self) -> MppSource:
        """Who said how large a pixel is."""
        return self.plan.mpp_source

    def write(self, path: Path, slide_id: str, encoder_id: str) -> None:
        """The file of levels."""
        size, grid = (self.plan.width, self.plan.height), self.plan.tile_px // PICTURE_PX
        temporary = path.with_name(f".{path.name}.new")
        try:
            write_levels(temporary, levels_of_slide(self.levels, self.plan.coords, size, grid, slide_id, encoder_id))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


class HierarchicalStage(SlideStage[ReadRegions]):
    """All networks on one device. Slides take turns, region by region; cells are looked for by threads beside it."""

    def __init__(self, spec: Hierarchical, file: Callable[[str], Path], device: torch.device) -> None:
        """`file` says where a file of weights lies. Raises ModelError when one does not fit."""
        self.spec, self._device = spec, device
        # As published in float32: cuDNN's convolutions would round to 10 bits.
        torch.backends.cudnn.allow_tf32 = False
        networks = _loaded(spec, file, device)
        halve_if_choices_agree(networks, spec)
        self._threads = ThreadPoolExecutor(
            min(decode_threads_here(), _MOST_CELL_THREADS), thread_name_prefix="find-cells"
        )
        pictures, cells = _PASSES["cuda" if device.type == "cuda" else "cpu"]
        self.encoder = HierarchicalEncoder(
            networks.vit256,
            networks.vit4k,
            networks.conch,
            networks.cellvit,
            networks.cell_fusion,
            networks.projector,
            dissimilar=spec.dissimilar,
            keep=spec.keep,
            pass_pictures=pictures,
            pass_cells=cells,
            cell_amp=None if spec.cellvit.amp == "none" else TORCH_DTYPES[spec.cellvit.amp],
            cell_threads=self._threads,
        )
        self._turn = threading.Lock()

    def read(self, slide: SlideInHand) -> ReadRegions:
        """Plans regions and makes all of each but the rows; goes on behind those that are kept."""
        caller = slide.caller
        caller.on_progress("find_regions", 0, 1)
        plan = slide.reader.plan(self.spec.regions, slide.mpp_override, slide.budget)
        caller.on_progress("find_regions", 1, 1)
        caller.on_warnings(plan.warnings)
        regions = load_regions(caller.parts, plan, self.spec)
        done, total = sum(len(part.region) for part in regions), len(plan.coords)
        caller.on_progress("encode_regions", done, total)
        anchor = torch.from_numpy(regions[0].anchor) if regions else None
        with RegionWriter(caller.parts, plan, done) as kept:
            for region in self._encoded(slide, plan, done, anchor):
                caller.ask()
                kept.add(region)
                regions.append(region)
                done += 1
                caller.on_progress("encode_regions", done, total)
        assert done == total, "every planned region is encoded once"
        return ReadRegions(plan, join_regions(regions))

    def encode(self, read: ReadRegions, ask: Ask = go_on) -> Tensors:
        """The rows, fp16; `region_xy` int32 [R, 2], level-0 corners; `patch_index` uint8 [R, k]."""
        levels = read.levels
        kept = KeptLevels(levels.region, levels.patch_index, levels.patch, levels.cell)
        return self.encode_kept(kept, read.plan.coords, ask)

    def encode_kept(self, levels: KeptLevels, coords: NDArray[np.integer], ask: Ask = go_on) -> Tensors:
        """The same of some regions of a slide, at corners [n, 2], from what is stored of them."""
        rows = self._rows(levels.region, levels.patch, levels.cell, ask=ask)
        return {ROWS: rows, REGION_XY: coords.astype(np.int32), PATCH_INDEX: levels.patch_index}

    def encode_given(self, given: GivenTiles | GivenLevels, ask: Ask = go_on) -> Tensors:
        """The same of a file of levels."""
        assert isinstance(given, GivenLevels), "tile features are refused for it"
        kept = KeptLevels(given.region, given.patch_index, given.patch, given.cell)
        return self.encode_kept(kept, given.coords, ask)

    def close(self) -> None:
        """Ends the threads that look for cells."""
        self._threads.shutdown()

    def warm_up(self) -> None:
        """One region: of one picture on a CPU, of a whole pass on a GPU, which finds the passes there is memory for."""
        if self._device.type == "cpu":
            fit_threads_to_quota()
        side = 1 if self._device.type == "cpu" else int(self.encoder.passes[0] ** 0.5)
        pixels = np.random.default_rng(0).integers(0, 256, (side * PICTURE_PX, side * PICTURE_PX, 3), dtype=np.uint8)
        region = self.encoder.encode_region(pixels, None)
        levels = levels_of_region(region, np.zeros(2, np.int64), side)
        self._rows(levels.region, levels.patch, levels.cell, ask=go_on)

    def golden_input(self, rng: np.random.Generator) -> dict[str, NDArray[np.generic]]:
        """A picture, uint8 [1, 256, 256, 3], and the levels of three regions: `region` [3, Dr], `patch` [3, k, Dp],
        `cell` [3, k, Dc]. Each network by itself: what one chooses of another's numbers may flip by rounding."""
        spec, regions = self.spec, 3
        return {
            "picture": rng.integers(0, 256, (1, PICTURE_PX, PICTURE_PX, 3), dtype=np.uint8),
            "region": rng.standard_normal((regions, spec.vit4k.embed_dim), dtype=np.float32),
            "patch": rng.standard_normal((regions, spec.kept, spec.conch.embed_dim), dtype=np.float32),
            "cell": rng.standard_normal((regions, spec.kept, spec.cellvit.embed_dim), dtype=np.float32),
        }

    def golden_output(self, given: Mapping[str, NDArray[np.generic]]) -> Tensors:
        """The rows of those levels, and what each network makes of the picture, by its name."""
        picture = given["picture"]
        if picture.shape != (1, PICTURE_PX, PICTURE_PX, 3) or picture.dtype != np.uint8:
            raise ValueError("the golden vector's picture has another shape")
        levels = [torch.from_numpy(given[name].astype(np.float32, copy=False)) for name in ("region", "patch", "cell")]
        looks = self.encoder.look(picture.astype(np.uint8, copy=False))
        looks["cellvit"] = looks["cellvit"][..., ::_GOLDEN_STEP, ::_GOLDEN_STEP].contiguous()
        return {ROWS: _as_rows(self.encoder.project(*levels)), **{name: it.numpy() for name, it in looks.items()}}

    def _encoded(
        self, slide: SlideInHand, plan: TilePlan, first: int, anchor: torch.Tensor | None
    ) -> Iterator[RegionLevels]:
        """The regions from `first` on, in order, as their cells are found."""
        started: deque[tuple[StartedRegion, NDArray[np.int64]]] = deque()
        for batch in slide.reader.tiles(1, first):
            with self._turn:
                one = self.encoder.begin_region(batch.pixels[0], anchor, slide.caller.ask)
            anchor = one.anchor if anchor is None else anchor
            started.append((one, plan.coords[batch.first]))
            if len(started) > _REGIONS_AHEAD:
                yield self._finished(*started.popleft())
        while started:
            yield self._finished(*started.popleft())

    def _finished(self, started: StartedRegion, corner: NDArray[np.int64]) -> RegionLevels:
        for find in started.cells:  # not while others wait for the device
            find()
        with self._turn:
            features = self.encoder.finish_region(started)
        return levels_of_region(features, corner, self.spec.grid)

    def _rows(self, *levels: NDArray[np.float32], ask: Ask) -> NDArray[np.float16]:
        """Of the features of regions, patches and cells."""
        ask()
        region, patch, cell = (torch.from_numpy(values) for values in levels)
        with self._turn:
            rows = trying_twice(lambda: self.encoder.project(region, patch, cell), self._device, len(region))
        return _as_rows(rows)


def _as_rows(rows: torch.Tensor) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):  # said below
        half = rows.numpy().astype(np.float16)
    if not np.isfinite(half).all():
        raise EncoderOverflowed("The slide's rows are beyond the range of 16-bit floats; use another model or dtype.")
    return half


def _loaded(spec: Hierarchical, file: Callable[[str], Path], device: torch.device) -> Networks:
    networks = empty_networks(spec)
    for name, network in networks.by_name().items():
        load_weights(network, file(spec.weights_files()[name]), name)
        network.to(device=device, dtype=torch.float32).eval().requires_grad_(False)
    return networks


def halve_if_choices_agree(networks: Networks, spec: Hierarchical) -> bool:
    """Puts the networks in the manifest's dtype where CONCH then chooses the same pictures of a seeded region, in the
    same order; else says so in the log and leaves them in float32, which is slower and closer to what is published."""
    if spec.dtype == "float32":
        return True
    region = tissue_like_tiles(_GATE_PICTURES, PICTURE_PX)
    expected = _chosen(networks.conch, region, spec)
    # A copy: back in float32, rounded weights would stay rounded.
    halved = copy.deepcopy(networks.conch).to(TORCH_DTYPES[spec.dtype])
    if not torch.equal(_chosen(halved, region, spec), expected):
        log.warning("In %s other pictures of a region are chosen than in float32: float32 is used.", spec.dtype)
        return False
    for name, network in networks.by_name().items():
        if name in _HALVED:
            network.to(TORCH_DTYPES[spec.dtype])
    return True


@torch.inference_mode()
def _chosen(conch: ConchImage, pictures: NDArray[np.uint8], spec: Hierarchical) -> torch.Tensor:
    given = torch.from_numpy(pictures).to(conch.proj_contrast.device)
    features = torch.cat([conch(some) for some in torch.split(given, 16)])
    return choose_patches(features[None], dissimilar=spec.dissimilar, keep=spec.keep).chosen
