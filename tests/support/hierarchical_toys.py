"""A toy of the hierarchical kind, as docs/add-a-model.md has it, and what stands in for its slow or silent parts."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from toy_kinds import documented, documented_manifest, toy_of

from encoders.caller import Caller
from encoders.hierarchical.cellvit import CellMaps
from encoders.hierarchical.networks import Networks, empty_networks
from encoders.load_weights import load_weights
from encoders.pipeline import Encoders, encode_slide
from encoders.slide_stages.hierarchical import HierarchicalStage, ReadRegions
from encoders.slide_stages.slide_stage import SlideInHand
from encoders.tile_budget import TileBudget
from encoders.tiling.isolation.reader_process import ReaderLimits, ReaderProcess
from encoders.tiling.region_plan import region_plan
from encoders.types import SlideEmbedding, SlideFacts, SlideFile, TileBatch, TilePlan
from model_store.contracts.hierarchical import Hierarchical
from model_store.contracts.region_grid import RegionGrid
from model_store.installed import InstalledModel
from model_store.manifest import Manifest

SLIDE_ID = "ab" * 32
CPU = torch.device("cpu")


def hierarchical_manifest(**changes: Any) -> Manifest:
    """The page's, with other values of the slide stage's own fields."""
    _, tables = documented()
    stage = {**tables["slide_stage", "hierarchical"], **changes}
    return documented_manifest(("projector", "none"), inputs={}, slide_stage=stage)


def hierarchical_toy(scratch: Path, **changes: Any) -> InstalledModel:
    """Installed, with seeded weights."""
    return toy_of(hierarchical_manifest(**changes), scratch)


def spec_of(model: InstalledModel) -> Hierarchical:
    """Its slide stage."""
    stage = model.manifest.slide_stage
    assert isinstance(stage, Hierarchical)
    return stage


def write_flat_slide(path: Path, pixels: NDArray[np.uint8]) -> None:
    """These pixels alone, without a lower level, at 0.5 µm/px."""
    height, width = pixels.shape[:2]
    tifffile.imwrite(
        path,
        pixels,
        tile=(256, 256),
        photometric="rgb",
        compression="jpeg",
        compressionargs={"level": 95},
        description=f"Aperio Image Library v12.0.0\r\n{width}x{height} Q=95|AppMag = 20|MPP = 0.5",
        metadata=None,
        software=False,
    )


class DarkIsNucleus(nn.Module):
    """In CellViT's place, in no time: dark pixels are one nucleus of kind 1, tokens the mean shade."""

    def __init__(self, embed_dim: int, below: int = 120) -> None:
        super().__init__()
        self._embed_dim, self._below = embed_dim, below

    def forward(self, pixels: Tensor) -> CellMaps:
        ink = (pixels[..., 1] < self._below).float()
        places = torch.stack(torch.meshgrid(*(torch.arange(side).float() for side in ink.shape[1:]), indexing="xy"))
        middle = (ink[:, None] * places).sum((2, 3)) / ink.sum((1, 2)).clamp(min=1)[:, None]
        distance = ink[:, None] * (places - middle[:, :, None, None]) / 128
        nucleus = torch.stack([1 - ink, ink], dim=1)
        kind = torch.cat([nucleus, torch.zeros_like(ink)[:, None].expand(-1, 4, -1, -1)], dim=1)
        shade = functional.avg_pool2d(pixels.float().mean(-1)[:, None] / 255, 16)
        return CellMaps(nucleus, distance, kind, shade.expand(-1, self._embed_dim, -1, -1))


def stage_with_dark_cells(model: InstalledModel, spec: Hierarchical | None = None) -> HierarchicalStage:
    """The toy's stage with cells that are found, and fast."""
    spec = spec or spec_of(model)
    stage = HierarchicalStage(spec, model.file, CPU)
    stage.encoder._cellvit = DarkIsNucleus(spec.cellvit.embed_dim)  # type: ignore[assignment]
    return stage


class DrawnRegions:
    """In a reader's place: regions that are drawn when they are asked for, never two at once by itself."""

    def __init__(self, regions: int, grid: RegionGrid, *, cells: bool = True) -> None:
        side = grid.region_px
        coords = np.stack([np.arange(regions) * side, np.zeros(regions)], axis=1).astype(np.int64)
        facts = SlideFacts("aperio", regions * side, side, 0.25, 40.0)
        self.drawn = 0
        self._plan, self._cells = region_plan(facts, grid, coords, 0.25, None, ()), cells

    def plan(self, cut: RegionGrid, mpp_override: float | None, budget: TileBudget | None = None) -> TilePlan:
        """All of them, side by side."""
        assert cut.region_px == self._plan.tile_px
        assert mpp_override is None
        return self._plan

    def tiles(self, batch_tiles: int, first_tile: int = 0) -> Iterator[TileBatch]:
        """One after the other, in memory that is used again, as a ring's is."""
        assert batch_tiles == 1
        ring = np.empty((1, self._plan.tile_px, self._plan.tile_px, 3), np.uint8)
        for index in range(first_tile, len(self._plan.coords)):
            ring[0] = self.region(index)
            self.drawn += 1
            yield TileBatch(index, ring)
            ring[:] = 0

    def region(self, index: int) -> NDArray[np.uint8]:
        """Noise of a shade of its own, a dark disc in every picture."""
        side, shift = self._plan.tile_px, index % 60
        pixels = np.roll(_noise(side), 7 * index, axis=0)
        if self._cells:
            for y, x in np.ndindex(side // 256, side // 256):
                pixels[y * 256 + 100 : y * 256 + 141, x * 256 + 70 + shift : x * 256 + 111 + shift][_disc()] = 40
        return pixels


@cache
def _noise(side: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(150, 230, (side, side, 3), dtype=np.uint8)


@cache
def _disc() -> NDArray[np.bool_]:
    y, x = np.mgrid[-20:21, -20:21]
    return np.asarray(x**2 + y**2 < 400)


def encoded(encoders: Encoders, slide: Path, folder: Path, caller: Caller | None = None) -> SlideEmbedding:
    """Through the pipeline, features in `folder`."""
    return encode_slide(
        SlideFile(SLIDE_ID, slide),
        encoders,
        mpp_override=None,
        limits=ReaderLimits(),
        features_path=folder / "features.h5",
        caller=caller or Caller(),
    )


def read_drawn(stage: HierarchicalStage, reader: DrawnRegions, caller: Caller | None = None) -> ReadRegions:
    """The stage's first half alone, of a drawn reader."""
    hand: Any = SlideInHand(reader, {}, None, caller or Caller())  # type: ignore[arg-type]
    return stage.read(hand)


def pixels_of(slide: Path, spec: Hierarchical) -> tuple[list[NDArray[np.uint8]], NDArray[np.int64]]:
    """A slide's regions and their corners."""
    with ReaderProcess(slide, ReaderLimits()) as reader:
        coords = reader.plan(spec.regions, None).coords
        return [batch.pixels[0].copy() for batch in reader.tiles(1)], coords


def same(one: ReadRegions, other: ReadRegions) -> bool:
    """Equal to the last bit."""
    mine, theirs = ({**vars(it.levels), **vars(it.levels.cells)} for it in (one, other))
    return all(np.array_equal(mine[name], theirs[name]) for name in mine if name != "cells")


def loaded_networks(model: InstalledModel) -> Networks:
    """The networks by themselves."""
    spec = spec_of(model)
    networks = empty_networks(spec)
    for name, network in networks.by_name().items():
        load_weights(network, model.file(spec.weights_files()[name]), name)
        network.eval().requires_grad_(False)
    return networks
