"""What is taken from the slide encoder's states: small pure functions, each a published use of the model.

They differ in what they normalise and when, and give different numbers from the same weights, so a manifest
names one. `norm` is the model's outer LayerNorm. Token 0 is the class token, tokens 1 … L are the tiles.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Keep = Literal["last", "all"]
TokenSource = Literal["encoder_out", "last_state"]
OuterNorm = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class SlideStates:
    """Hidden states of one slide of L tiles, fp32 [L + 1, D] each, before any final norm.

    `states` holds the embeddings and every layer's output in order, or, with keep="last", the last layer's
    alone. `encoder_out` is the last one after the encoder's own layer norm.
    """

    states: list[Tensor]
    encoder_out: Tensor
    keep: Keep

    def every_state(self) -> list[Tensor]:
        """All depth + 1 states; ValueError when the forward pass kept the last one only."""
        if self.keep != "all":
            raise ValueError('This output needs every layer: run the slide encoder with keep="all".')
        return self.states


def cls(states: SlideStates, norm: OuterNorm) -> Tensor:
    """The class token of the encoder's output, normalised a second time: [D]. The published default."""
    return norm(states.encoder_out)[0]


def all_layer_cls(states: SlideStates, norm: OuterNorm) -> Tensor:
    """The class token of every state: [depth + 1, D]; the last is not `cls`, lacking the encoder's own norm."""
    return torch.stack([norm(state)[0] for state in states.every_state()])


def global_pool(states: SlideStates, norm: OuterNorm) -> Tensor:
    """The tiles' mean of the encoder's output, then normalised: [D]."""
    return norm(states.encoder_out[1:].mean(dim=0))


def all_layer_global_pool(states: SlideStates, norm: OuterNorm) -> Tensor:
    """The tiles' mean of every state, then normalised: [depth + 1, D]; TRIDENT takes index 11 of 12 layers."""
    return torch.stack([norm(state[1:].mean(dim=0)) for state in states.every_state()])


def slide_tokens(
    states: SlideStates, norm: OuterNorm, *, source: TokenSource, apply_norm: bool, bins: int = 576
) -> Tensor:
    """WSI-LLaVA's rows: tiles in order averaged into `bins`, then normalised or not: [bins, D].

    Bin i is the mean of tiles floor(i L / bins) … ceil((i + 1) L / bins) - 1: fewer tiles than bins repeat.
    Which of the four combinations made the published features is not known, hence no default.
    """
    tokens = states.encoder_out if source == "encoder_out" else states.states[-1]
    pooled = functional.adaptive_avg_pool1d(tokens[1:].T[None], bins)[0].T
    return norm(pooled) if apply_norm else pooled


def pad_to_width(tokens: Tensor, width: int) -> Tensor:
    """Add zero columns up to the projector's input width: [N, D] → [N, width]; stored files stay unpadded."""
    missing = width - tokens.shape[1]
    if missing < 0:
        raise ValueError(f"Slide tokens are {tokens.shape[1]} wide, more than the projector's {width}.")
    return functional.pad(tokens, (0, missing))


Output = Callable[[SlideStates, OuterNorm], Tensor]

VECTOR_OUTPUTS: Mapping[str, Output] = {
    "cls": cls,
    "all_layer_cls": all_layer_cls,
    "global_pool": global_pool,
    "all_layer_global_pool": all_layer_global_pool,
}
POOLED_OUTPUTS: Mapping[str, Callable[..., Tensor]] = {
    "wsi_llava_encoder_out_norm": partial(slide_tokens, source="encoder_out", apply_norm=True),
    "wsi_llava_encoder_out": partial(slide_tokens, source="encoder_out", apply_norm=False),
    "wsi_llava_last_state_norm": partial(slide_tokens, source="last_state", apply_norm=True),
    "wsi_llava_last_state": partial(slide_tokens, source="last_state", apply_norm=False),
}
OUTPUTS: Mapping[str, Output] = {**VECTOR_OUTPUTS, **POOLED_OUTPUTS}


def keep_for(output: str) -> Keep:
    """Which states the forward pass has to keep for an output of OUTPUTS."""
    return "all" if output.startswith("all_layer") else "last"


def output_rows(output: str, states: SlideStates, norm: OuterNorm, rows: int) -> Tensor:
    """An output of OUTPUTS as rows for a language model: [rows, D]. One vector is one row; a pool has `rows` bins."""
    if output in POOLED_OUTPUTS:
        return POOLED_OUTPUTS[output](states, norm, bins=rows)
    return VECTOR_OUTPUTS[output](states, norm).view(-1, states.encoder_out.shape[1])
