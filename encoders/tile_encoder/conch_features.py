"""CONCH's image tower as a tile encoder: which of its vectors are a tile's features."""

from typing import assert_never

from torch import Tensor, nn
from torch.nn import functional

from encoders.hierarchical.conch import ConchTower
from model_store.contracts.tile_encoder import ConchTileEncoder


class ConchFeatures(ConchTower):
    """Normalised pictures [B, 3, enlarged_px, enlarged_px] → [B, feature_dim]; all weights, whatever is taken."""

    def __init__(self, spec: ConchTileEncoder) -> None:
        super().__init__(
            width=spec.width,
            depth=spec.depth,
            num_heads=spec.num_heads,
            embed_dim=spec.feature_dim,
            input_px=spec.enlarged_px,
        )
        self._output = spec.output

    @property
    def blocks(self) -> nn.Sequential:
        """The trunk's, for who multiplies their matrices in another way."""
        blocks: nn.Sequential = self.trunk.blocks
        return blocks

    def forward(self, picture: Tensor) -> Tensor:
        """See the class. A length is made 1 in float32."""
        match self._output:
            case "pooled":
                return self.pooled(picture)
            case "projected":
                return self.projected(picture)
            case "unit":
                return functional.normalize(self.projected(picture).float(), dim=-1)
            case _:
                assert_never(self._output)
