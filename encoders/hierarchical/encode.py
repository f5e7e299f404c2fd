"""Regions of a slide to all levels of MLLM-HWSI and the language model's rows, one region at a time.

What a region gives depends on its pixels and on the slide's anchor alone, and is small: `encode_region` is the unit
that can be kept, and `join` makes the slide of what was kept. Regions come in the published order, because the first
one makes the anchor (`choose_patches`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.errors import EncoderOverflowed, NoTissue
from encoders.hierarchical.cell_fusion import CellFusion
from encoders.hierarchical.cell_tokens import cell_tokens
from encoders.hierarchical.cellvit import CellVit256
from encoders.hierarchical.choose_patches import choose_patches
from encoders.hierarchical.conch import ConchImage
from encoders.hierarchical.find_cells import Cells, find_cells
from encoders.hierarchical.projector import HierarchicalProjector
from encoders.hierarchical.vit4k import Vit4k
from encoders.hierarchical.vit256 import Vit256

PICTURE_PX: Final = 256

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class RegionFeatures:
    """One region of G x G pictures; float32 and int64, on the CPU. k = min(keep, dissimilar, G·G)."""

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
    """The six networks, all on one device and in evaluation mode.

    `pass_pictures` and `pass_cells` are the pictures that CONCH and ViT-256, and CellViT, see at once: they bound
    memory and, but for rounding, change nothing.
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
        pass_pictures: int = 16,
        pass_cells: int = 4,
    ) -> None:
        self._vit256, self._vit4k, self._conch = vit256, vit4k, conch
        self._cellvit, self._cell_fusion, self._projector = cellvit, cell_fusion, projector
        self._dissimilar, self._keep = dissimilar, keep
        self._pass_pictures, self._pass_cells = pass_pictures, pass_cells
        self._device = vit256.cls_token.device

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

    @torch.inference_mode()
    def encode_region(self, pixels: Pixels, anchor: Tensor | None) -> RegionFeatures:
        """One region, uint8 RGB [S, S, 3]; `anchor` is None for the slide's first alone.

        Raises EncoderOverflowed for a result that is not finite, ValueError for other pixels.
        """
        pictures = _pictures(pixels)
        # Glass is many equal pictures: computed once, and equal to the last bit wherever they lie.
        first, place = _distinct(pictures)
        different = torch.from_numpy(pictures[first]).to(self._device)
        vectors = torch.cat([self._vit256(some) for some in torch.split(different, self._pass_pictures)])[place]
        patches = torch.cat([self._conch(some) for some in torch.split(different, self._pass_pictures)])[place]
        region = self._vit4k(vectors[None])[0]
        _check_finite(region, patches)
        anchor = None if anchor is None else anchor.to(self._device)
        choice = choose_patches(patches[None], anchor=anchor, dissimilar=self._dissimilar, keep=self._keep)
        chosen = choice.chosen[0]
        cells, tokens = self._find_cells(pictures[chosen.cpu().numpy()])
        cell = self._cell_fusion(tokens)
        _check_finite(cell)
        return RegionFeatures(
            region=region.float().cpu(),
            patch=patches[chosen].cpu(),
            patch_index=chosen.cpu(),
            cell=cell.cpu(),
            cells=tuple(cells),
            anchor=choice.anchor.cpu(),
        )

    @torch.inference_mode()
    def join(self, regions: Sequence[RegionFeatures]) -> HierarchicalFeatures:
        """All regions of a slide, in published order; raises NoTissue for none, EncoderOverflowed, and ValueError."""
        if not regions:
            raise NoTissue("No region of the slide has tissue. Send one that shows tissue, or scan it darker.")
        if len({len(region.patch) for region in regions}) > 1:
            raise ValueError("All regions of a slide have as many chosen patches; give regions of one size.")
        region = torch.stack([one.region for one in regions])
        patch = torch.stack([one.patch for one in regions])
        cell = torch.stack([one.cell for one in regions])
        slide = region.mean(dim=0)
        rows = self._projector(*(level.to(self._device) for level in (slide, region, patch, cell)))
        _check_finite(rows)
        index = torch.stack([one.patch_index for one in regions])
        return HierarchicalFeatures(slide, region, patch, index, cell, rows.cpu())

    def _find_cells(self, pictures: Pixels) -> tuple[list[Cells], list[Tensor]]:
        """The cells of each picture and their tokens, [K, 384]."""
        found: list[Cells] = []
        tokens: list[Tensor] = []
        for some in torch.split(torch.from_numpy(pictures).to(self._device), self._pass_cells):
            maps = self._cellvit(some)
            for classes, token_map in zip(maps.decide(), maps.tokens, strict=True):
                cells = find_cells(classes.nucleus, classes.kind, classes.distance)
                found.append(cells)
                tokens.append(cell_tokens(token_map, cells.instances, cells.numbers))
        return found, tokens


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
