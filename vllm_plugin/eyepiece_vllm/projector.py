"""Slide tokens → the language model's embedding space. It knows nothing of vLLM.

Shapes: N slide tokens, W stored width, M projector input width, H hidden size of the language model.
"""

import torch
from torch import nn


class SlideProjector(nn.Sequential):
    """LLaVA's `mlp2x_gelu` behind zero-padding: [N, W] → [N, M] → [N, H], W ≤ M.

    Submodules are named 0 and 2, as in a published checkpoint (`model.mm_projector.0.weight` …).
    """

    def __init__(self, width: int, hidden_size: int) -> None:
        # GELU without approximation: the published projector was trained with the exact one.
        super().__init__(nn.Linear(width, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size))
        self.width = width

    def forward(self, slide_tokens: torch.Tensor) -> torch.Tensor:
        """[N, W] → [N, H]; pads on the right, after the slide encoder's norm, as the published features were."""
        missing = self.width - slide_tokens.shape[-1]
        return super().forward(nn.functional.pad(slide_tokens, (0, missing)))


def make_projector(kind: str, width: int, hidden_size: int) -> nn.Module:
    """The projector of a kind in `config.json`; "identity" has no tensors, its rows are [N, H] already."""
    return nn.Identity() if kind == "identity" else SlideProjector(width, hidden_size)
