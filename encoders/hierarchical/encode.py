"""Regions of a slide to all levels of MLLM-HWSI and the language model's rows, one region at a time.

What a region gives depends on its pixels and on the slide's anchor alone, and is small: that is the unit that can be
kept, and `join` makes the slide of what was kept. Regions come in the published order, because the first one makes the
anchor (`choose_patches`). A region is worked on in two halves, so that the device computes the next one while threads
look for the cells of this one: `begin_region` has it go through the networks, `finish_region` waits for its cells.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.device_errors import MORE_MEMORY, empty_cache, translated_device_errors
from encoders.errors import DeviceFull, DeviceOutOfMemory, EncoderOverflowed, NoTissue
from encoders.hierarchical.cell_fusion import CellFusion
from encoders.hierarchical.cell_tokens import cell_tokens
from encoders.hierarchical.cellvit import CellVit256, PixelClasses
from encoders.hierarchical.choose_patches import choose_patches
from encoders.hierarchical.conch import ConchImage
from encoders.hierarchical.find_cells import Cells, find_cells
from encoders.hierarchical.projector import HierarchicalProjector
from encoders.hierarchical.vit4k import Vit4k
from encoders.hierarchical.vit256 import Vit256

PICTURE_PX: Final = 256
# Pictures that CONCH and ViT-256, and CellViT, see at once on a CPU. With more, what a layer makes is larger than what
# malloc keeps (32 MB): every layer then gets new pages from the system, and leaves the caches (docs/decisions/0074).
CPU_PASSES: Final = (2, 1)

Pixels = NDArray[np.uint8]
_Result = TypeVar("_Result")

log = logging.getLogger(__name__)


def _go_on() -> None:
    """For a caller that never stops."""


@dataclass(frozen=True)
class RegionFeatures:
    """One region of G x G pictures; float32 and int64, on the CPU. k = min(keep, dissimilar, G·G).

    Widths are the published ones, here and below; a manifest may have others.
    """

    region: Tensor
    """[192]."""
    patch: Tensor
    """[k, 512], the chosen pictures, most like the anchor first."""
    patch_index: Tensor
    """[k]: row · G + column of each in the region."""
    cell: Tensor
    """[k, 384], the cells of each; zeros where there are none."""
    cells: tuple[Cells, ...]
    """k times the cells themselves, in the picture's own pixels."""
    anchor: Tensor
    """[512]: the slide's, for its other regions."""


@dataclass(frozen=True)
class StartedRegion:
    """A region behind the networks that see pixels; its cells are being looked for."""

    region: Tensor
    patch: Tensor
    patch_index: Tensor
    anchor: Tensor
    tokens: Tensor
    """[k, 384, 16, 16], on the device."""
    cells: Sequence[Callable[[], Cells]]
    """k times: waits for them."""


@dataclass(frozen=True)
class HierarchicalFeatures:
    """A slide of R regions; float32 and int64, on the CPU."""

    slide: Tensor
    """[192]: the mean of the regions."""
    region: Tensor
    """[R, 192]."""
    patch: Tensor
    """[R, k, 512]."""
    patch_index: Tensor
    """[R, k]."""
    cell: Tensor
    """[R, k, 384]."""
    rows: Tensor
    """[query_tokens, llm_dim]: what stands in front of the prompt."""


class HierarchicalEncoder:
    """The six networks, all on one device and in evaluation mode; one thread at a time may compute.

    `pass_pictures` and `pass_cells` are the pictures that CONCH and ViT-256, and CellViT, see at once: they bound
    memory and, but for rounding, change nothing. Where the device's memory does not do they are halved, from then on.
    `cell_amp` is what CellViT's products are computed in, as by autocast; None as its weights are. `cell_threads` looks
    for cells; without it they are looked for when they are wanted.
    """

    def __init__(  # noqa: PLR0913 - the networks, by level
        self,
        vit256: Vit256,
        vit4k: Vit4k,
        conch: ConchImage,
        cellvit: CellVit256,
        cell_fusion: CellFusion,
        projector: HierarchicalProjector,
        *,
        dissimilar: int = 32,
        keep: int = 16,
        pass_pictures: int = CPU_PASSES[0],
        pass_cells: int = CPU_PASSES[1],
        cell_amp: torch.dtype | None = None,
        cell_threads: Executor | None = None,
    ) -> None:
        self._vit256, self._vit4k, self._conch = vit256, vit4k, conch
        self._cellvit, self._cell_fusion, self._projector = cellvit, cell_fusion, projector
        self._dissimilar, self._keep = dissimilar, keep
        self._pass_pictures, self._pass_cells = pass_pictures, pass_cells
        self._cell_amp, self._cell_threads = cell_amp, cell_threads
        self._device = vit256.cls_token.device

    @property
    def passes(self) -> tuple[int, int]:
        """Pictures and pictures with cells that the device sees at once."""
        return self._pass_pictures, self._pass_cells

    def encode(self, regions: Iterable[Pixels]) -> HierarchicalFeatures:
        """Pixels of the regions, uint8 RGB [S, S, 3] each, in published order, read one at a time.

        S is a multiple of 256, the same for all. Raises NoTissue when there is no region, EncoderOverflowed for a
        result that is not finite, ValueError for other pixels.
        """
        encoded: list[RegionFeatures] = []
        for pixels in regions:
            one = self.encode_region(pixels, encoded[0].anchor if encoded else None)
            # Maps of cells are 4 MB a region, and of no more use here.
            encoded.append(replace(one, cells=()))
        return self.join(encoded)

    def encode_region(self, pixels: Pixels, anchor: Tensor | None) -> RegionFeatures:
        """One region, uint8 RGB [S, S, 3]; `anchor` is None for the slide's first alone.

        Raises EncoderOverflowed for a result that is not finite, ValueError for other pixels.
        """
        return self.finish_region(self.begin_region(pixels, anchor))

    def begin_region(self, pixels: Pixels, anchor: Tensor | None, ask: Callable[[], None] = _go_on) -> StartedRegion:
        """The same up to the search for cells; `pixels` are copied, `ask` is called between passes and may raise.

        Raises also DeviceFull, DeviceLost.
        """
        pictures = _pictures(pixels)
        return self._in_passes(lambda: self._begin(pictures, anchor, ask))

    def finish_region(self, started: StartedRegion) -> RegionFeatures:
        """Waits for the cells of the region; raises as `begin_region`."""
        cells = tuple(find() for find in started.cells)
        return RegionFeatures(
            region=started.region,
            patch=started.patch,
            patch_index=started.patch_index,
            cell=self._in_passes(lambda: self._fuse(started.tokens, cells)),
            cells=cells,
            anchor=started.anchor,
        )

    def join(self, regions: Sequence[RegionFeatures]) -> HierarchicalFeatures:
        """All regions of a slide, in published order; raises NoTissue for none, EncoderOverflowed, and ValueError."""
        if not regions:
            raise NoTissue("No region of the slide has tissue. Send one that shows tissue, or scan it darker.")
        if len({len(region.patch) for region in regions}) > 1:
            raise ValueError("All regions of a slide have as many chosen patches; give regions of one size.")
        region = torch.stack([one.region for one in regions])
        patch = torch.stack([one.patch for one in regions])
        cell = torch.stack([one.cell for one in regions])
        index = torch.stack([one.patch_index for one in regions])
        rows = self.project(region, patch, cell)
        return HierarchicalFeatures(region.mean(dim=0), region, patch, index, cell, rows)

    @torch.inference_mode()
    def project(self, region: Tensor, patch: Tensor, cell: Tensor) -> Tensor:
        """[R, 192], [R, k, 512] and [R, k, 384] → [query_tokens, llm_dim], float32 on the CPU; raises as `join`."""
        levels = (region.mean(dim=0), region, patch, cell)
        rows: Tensor = self._projector(*(level.to(self._device) for level in levels))
        _check_finite(rows)
        on_cpu: Tensor = rows.cpu()
        return on_cpu

    @torch.inference_mode()
    def look(self, pictures: Pixels) -> dict[str, Tensor]:
        """What each network makes of some pictures [B, 256, 256, 3] alone, and ViT-4K of the first as a region: float32
        on the CPU, by the network's name. Of CellViT shares of 0 … 1, and distances, [B, kinds + 4, 256, 256]."""
        given = torch.from_numpy(pictures).to(self._device)
        vectors = self._vit256(given)
        with self._cell_precision():
            maps = self._cellvit(given)
        nucleus, kind = (logits.float().softmax(1) for logits in (maps.nucleus, maps.kind))
        made = {
            "vit256": vectors,
            "vit4k": self._vit4k(vectors[None, :1]),
            "conch": self._conch(given),
            "cellvit": torch.cat([nucleus, maps.distance.float(), kind], dim=1),
            "cell_fusion": self._cell_fusion(list(maps.tokens.float().flatten(2).transpose(1, 2))),
        }
        return {name: tensor.float().cpu() for name, tensor in made.items()}

    @torch.inference_mode()
    def _begin(self, pictures: Pixels, anchor: Tensor | None, ask: Callable[[], None]) -> StartedRegion:
        # Glass is many equal pictures: computed once, and equal to the last bit wherever they lie.
        first, place = _distinct(pictures)
        different = torch.from_numpy(pictures[first]).to(self._device)
        vectors, patches = [], []
        for some in torch.split(different, self._pass_pictures):
            ask()
            vectors.append(self._vit256(some))
            patches.append(self._conch(some))
        patch = torch.cat(patches)[place]
        region = self._vit4k(torch.cat(vectors)[place][None])[0]
        _check_finite(region, patch)
        anchor = None if anchor is None else anchor.to(self._device)
        choice = choose_patches(patch[None], anchor=anchor, dissimilar=self._dissimilar, keep=self._keep)
        chosen = choice.chosen[0]
        cells: list[Callable[[], Cells]] = []
        tokens = []
        for some in torch.split(torch.from_numpy(pictures[chosen.cpu().numpy()]).to(self._device), self._pass_cells):
            ask()
            with self._cell_precision():
                maps = self._cellvit(some)
            cells += [self._find(classes) for classes in maps.decide()]
            tokens.append(maps.tokens)
        return StartedRegion(
            region=region.float().cpu(),
            patch=patch[chosen].cpu(),
            patch_index=chosen.cpu(),
            anchor=choice.anchor.cpu(),
            tokens=torch.cat(tokens),
            cells=cells,
        )

    def _find(self, classes: PixelClasses) -> Callable[[], Cells]:
        find = partial(find_cells, classes.nucleus, classes.kind, classes.distance)
        return find if self._cell_threads is None else self._cell_threads.submit(find).result

    @torch.inference_mode()
    def _fuse(self, tokens: Tensor, cells: Sequence[Cells]) -> Tensor:
        found = [cell_tokens(one, it.instances, it.numbers) for one, it in zip(tokens, cells, strict=True)]
        cell = self._cell_fusion(found)
        _check_finite(cell)
        on_cpu: Tensor = cell.float().cpu()
        return on_cpu

    def _cell_precision(self) -> AbstractContextManager[object]:
        if self._cell_amp is None:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._cell_amp)

    def _in_passes(self, compute: Callable[[], _Result]) -> _Result:
        """With smaller passes from now on, as long as the device's memory does not do for them."""
        while True:
            try:
                with translated_device_errors():
                    return compute()
            except DeviceOutOfMemory:
                pass
            # What torch kept for later is in pieces.
            empty_cache(self._device)
            if self.passes == (1, 1):
                raise DeviceFull(f"The encoders' device has no memory for a single picture. {MORE_MEMORY}")
            self._pass_pictures, self._pass_cells = (self._pass_pictures + 1) // 2, (self._pass_cells + 1) // 2
            log.warning(
                "The device's memory does not do; from now on it is given %d pictures and %d for cells.", *self.passes
            )


def _pictures(pixels: Pixels) -> Pixels:
    """[S, S, 3] → [G·G, 256, 256, 3], row by row."""
    side = pixels.shape[0] if pixels.ndim == 3 else 0
    if pixels.dtype != np.uint8 or not side or side % PICTURE_PX or pixels.shape != (side, side, 3):
        raise ValueError(f"A region is uint8 [S, S, 3], S a multiple of {PICTURE_PX}, not {list(pixels.shape)}.")
    grid = side // PICTURE_PX
    cut = pixels.reshape(grid, PICTURE_PX, grid, PICTURE_PX, 3).swapaxes(1, 2)
    return cut.reshape(grid * grid, PICTURE_PX, PICTURE_PX, 3)


def _distinct(pictures: Pixels) -> tuple[list[int], list[int]]:
    """The index of the first of each kind of equal pictures, and for each picture which of those it is."""
    places: dict[bytes, int] = {}
    first: list[int] = []
    place = []
    for index, picture in enumerate(pictures):
        content = picture.tobytes()
        if content not in places:
            places[content] = len(first)
            first.append(index)
        place.append(places[content])
    return first, place


def _check_finite(*tensors: Tensor) -> None:
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise EncoderOverflowed("The encoder of regions gave numbers that are not finite; use float32 in its manifest.")
