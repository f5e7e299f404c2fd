"""From the levels of a slide to the language model's rows: MLLM-HWSI's projectors, fusion and resampler.

Written from the behaviour of the public code (`mllm_hwsi.py`), whose tensor names are kept; the paper is arXiv
2603.23067. Each level goes through a projector of its own; slide, region, and the means of the region's patches and of
its cells are fused to one row for each region; learnt queries make a fixed number of rows of those, however many they
are. No masks, as published: a patch without cells, zeros before its projector, has its part in the mean.

In float32, as published, whatever the language model computes in. Dropout of the published training is not here; the
numbers in the names of the layers leave its places free.
"""

from typing import Final

import torch
from torch import Tensor, nn

REGION_DIM: Final = 192
PATCH_DIM: Final = 512
CELL_DIM: Final = 384
_ATTENTION_HEADS: Final = 8


class HierarchicalProjector(nn.Module):
    """slide [192], region [R, 192], patch [R, C, 512], cell [R, C, 384] → float32 [query_tokens, llm_dim].

    R ≥ 1 regions with C ≥ 1 patches each. `llm_dim` is a multiple of 8. The widths are the published ones; a slide's
    vector is a mean of regions, so the two are of one width.
    """

    def __init__(
        self,
        *,
        llm_dim: int = 3584,
        hidden_dim: int = 1024,
        query_tokens: int = 64,
        region_dim: int = REGION_DIM,
        patch_dim: int = PATCH_DIM,
        cell_dim: int = CELL_DIM,
    ) -> None:
        super().__init__()
        self._widths = (region_dim, patch_dim, cell_dim)
        self.wsi_proj = _Projector(region_dim, hidden_dim, llm_dim)
        self.region_proj = _Projector(region_dim, hidden_dim, llm_dim)
        self.patch_proj = _Projector(patch_dim, hidden_dim, llm_dim)
        self.cell_proj = _Projector(cell_dim, hidden_dim, llm_dim)
        self.fusion = _Fusion(llm_dim)
        self.compressor = _Resampler(llm_dim, query_tokens)

    def forward(self, slide: Tensor, region: Tensor, patch: Tensor, cell: Tensor) -> Tensor:
        """See the class; ValueError for other shapes."""
        rows: Tensor = self.compressor(self.fuse(slide, region, patch, cell))
        return rows

    def fuse(self, slide: Tensor, region: Tensor, patch: Tensor, cell: Tensor) -> Tensor:
        """One row for each region, [R, llm_dim]: what the resampler reads. ValueError for other shapes."""
        self._check(slide, region, patch, cell)
        regions = self.region_proj(region.float())
        slides = self.wsi_proj(slide.float()).expand_as(regions)
        levels = [slides, regions, self.patch_proj.mean(patch.float()), self.cell_proj.mean(cell.float())]
        fused: Tensor = self.fusion(torch.cat(levels, dim=-1), regions)
        return fused

    def _check(self, slide: Tensor, region: Tensor, patch: Tensor, cell: Tensor) -> None:
        regions = len(region)
        patches = patch.shape[1] if patch.dim() == 3 else 0
        of_region, of_patch, of_cell = self._widths
        wanted = [(of_region,), (regions, of_region), (regions, patches, of_patch), (regions, patches, of_cell)]
        given = [tuple(level.shape) for level in (slide, region, patch, cell)]
        if given != wanted or not regions or not patches:
            raise ValueError(
                f"The levels of a slide are [{of_region}], [R, {of_region}], [R, C, {of_patch}] and [R, C, {of_cell}], "
                f"R and C of 1 or more, not {given}."
            )


class _Projector(nn.Module):
    """Layer norm, linear, exact GELU, linear, under their published names `proj.projector.{0, 1, 4}`."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        layers = nn.Sequential(
            nn.LayerNorm(in_dim),
            nn.Linear(in_dim, hidden_dim),
            nn.GELU(),
            nn.Identity(),
            nn.Linear(hidden_dim, out_dim),
        )
        self.proj = nn.ModuleDict({"projector": layers})

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_dim] → [..., out_dim]."""
        rows: Tensor = self.proj["projector"](x)
        return rows

    def mean(self, x: Tensor) -> Tensor:
        """[R, C, in_dim] → [R, out_dim], the mean of what `forward` gives over C.

        The mean is taken before the last layer, which is linear: the same sum from a C-th of its arithmetic and memory.
        """
        *before, last = self.proj["projector"].children()
        for layer in before:
            x = layer(x)
        rows: Tensor = last(x.mean(dim=1))
        return rows


class _Fusion(nn.Module):
    """Four levels side by side → one row for each region, with the region's own added."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fuse = nn.Sequential(
            nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim), nn.GELU(), nn.Identity(), nn.Linear(2 * dim, dim)
        )
        self.out_norm = nn.LayerNorm(dim)

    def forward(self, levels: Tensor, regions: Tensor) -> Tensor:
        """[R, 4 · dim] and [R, dim] → [R, dim]."""
        rows: Tensor = self.out_norm(self.fuse(levels) + regions)
        return rows


class _Resampler(nn.Module):
    """Learnt queries over the regions' rows; only the queries are normalised before attention, nothing after."""

    def __init__(self, dim: int, query_tokens: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.zeros(1, query_tokens, dim))
        self.attn = nn.MultiheadAttention(dim, _ATTENTION_HEADS, batch_first=True)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Identity(), nn.Linear(4 * dim, dim))

    def forward(self, regions: Tensor) -> Tensor:
        """[R, dim] → [query_tokens, dim]."""
        rows = regions[None]
        attended, _ = self.attn(self.norm1(self.queries), rows, rows, need_weights=False)
        z = self.queries + attended
        out: Tensor = (z + self.mlp(self.norm2(z)))[0]
        return out
