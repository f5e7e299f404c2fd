"""The six networks of MLLM-HWSI, in the sizes of a manifest."""

from dataclasses import dataclass

import torch
from torch import nn

from encoders.hierarchical.cell_fusion import CellFusion
from encoders.hierarchical.cellvit import CellVit256
from encoders.hierarchical.conch import ConchImage
from encoders.hierarchical.projector import HierarchicalProjector
from encoders.hierarchical.vit4k import Vit4k
from encoders.hierarchical.vit256 import Vit256
from model_store.contracts.hierarchical import HIERARCHICAL_NETWORKS, Hierarchical


@dataclass(frozen=True)
class Networks:
    """By the names of their tables in the manifest."""

    vit256: Vit256
    vit4k: Vit4k
    conch: ConchImage
    cellvit: CellVit256
    cell_fusion: CellFusion
    projector: HierarchicalProjector

    def by_name(self) -> dict[str, nn.Module]:
        """All of them."""
        return {name: getattr(self, name) for name in HIERARCHICAL_NETWORKS}


def empty_networks(spec: Hierarchical) -> Networks:
    """On the meta device: names and shapes, no numbers."""
    region, picture, patch, cells = spec.vit4k, spec.vit256, spec.conch, spec.cellvit
    with torch.device("meta"):
        return Networks(
            vit256=Vit256(embed_dim=picture.embed_dim, depth=picture.depth, num_heads=picture.num_heads),
            vit4k=Vit4k(
                in_dim=picture.embed_dim, embed_dim=region.embed_dim, depth=region.depth, num_heads=region.num_heads
            ),
            conch=ConchImage(
                width=patch.width,
                depth=patch.depth,
                num_heads=patch.num_heads,
                embed_dim=patch.embed_dim,
                input_px=patch.input_px,
            ),
            cellvit=CellVit256(
                cell_kinds=cells.cell_kinds,
                tissue_kinds=cells.tissue_kinds,
                embed_dim=cells.embed_dim,
                depth=cells.depth,
                num_heads=cells.num_heads,
                channels=cells.channels,
                mean=cells.mean,
                std=cells.std,
            ),
            cell_fusion=CellFusion(
                embed_dim=cells.embed_dim, depth=spec.cell_fusion.depth, num_heads=spec.cell_fusion.num_heads
            ),
            projector=HierarchicalProjector(
                llm_dim=spec.projector.llm_dim,
                hidden_dim=spec.projector.hidden_dim,
                query_tokens=spec.projector.query_tokens,
                region_dim=region.embed_dim,
                patch_dim=patch.embed_dim,
                cell_dim=cells.embed_dim,
            ),
        )
