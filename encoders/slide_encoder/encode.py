"""The features of a slide's tiles through LongNet, then the output that a slide stage of kind `longnet-pool` names."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from encoders.device_errors import empty_cache, translated_device_errors
from encoders.errors import DeviceOutOfMemory, EncoderOverflowed
from encoders.load_weights import TORCH_DTYPES, load_weights
from encoders.slide_encoder.flash_attention import load_flash_attention
from encoders.slide_encoder.longnet import LongNetViT
from encoders.slide_encoder.outputs import keep_for, output_rows
from encoders.tiling.plan_tiles import stride_px_level0
from encoders.types import TileFeatures
from model_store.contracts.slide_stage import LongnetPool

# Whose kernel: torch's own, or the package flash-attn's. They differ by rounding.
SlideAttention = Literal["torch", "flash-attn"]

log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


def _go_on() -> None:
    """For a caller that never stops."""


class SlideEncoder:
    """One slide encoder on one device; one slide per call, as the published model requires."""

    def __init__(
        self, spec: LongnetPool, weights: Path, device: torch.device, attention: SlideAttention = "torch"
    ) -> None:
        """Raises ModelError when the weights do not fit, or the kernel of attention cannot be had."""
        self._spec = spec
        self._device = device
        self._model = _build(spec, weights, device)
        if attention == "flash-attn":
            self._model.use_attention(load_flash_attention(device, TORCH_DTYPES[spec.dtype]))

    def encode(self, features: TileFeatures, ask: Callable[[], None] = _go_on) -> NDArray[np.float16]:
        """Features [N, D] in raster order → slide tokens fp16 [slide_tokens, embed_dim], not padded.

        Half a million tiles take minutes on a CPU: `ask` is called all along, and stops it by raising.

        Raises SlideTooLarge for a tile outside the position grid, EncoderOverflowed for a result that is not finite,
        DeviceOutOfMemory and DeviceLost.
        """
        plan = features.plan
        return self.encode_rows(features.features, plan.coords, plan.tile_px, plan.tile_px_level0, ask)

    def encode_rows(
        self,
        features: NDArray[np.float32],
        coords: NDArray[np.int64],
        tile_px: int,
        tile_px_level0: float | None,
        ask: Callable[[], None] = _go_on,
    ) -> NDArray[np.float16]:
        """The same without a plan; `tile_px_level0` may be None where the manifest's grid does not need it."""
        grid_px = self._grid_px(tile_px, tile_px_level0)
        return trying_twice(lambda: self._tokens(features, coords, grid_px, ask), self._device, len(features))

    @torch.inference_mode()
    def _tokens(
        self, features: NDArray[np.float32], coords: NDArray[np.int64], grid_px: int, ask: Callable[[], None]
    ) -> NDArray[np.float16]:
        with asked_all_along(self._model, ask):
            states = self._model(
                torch.from_numpy(features).to(self._device),
                torch.from_numpy(coords),  # the grid is the CPU's: see grid_index
                keep=keep_for(self._spec.output),
                tile_size=grid_px,
            )
        tokens = output_rows(self._spec.output, states, self._model.norm, self._spec.slide_tokens)
        half = tokens.to(torch.float16).cpu().numpy()
        if not np.isfinite(half).all():
            raise EncoderOverflowed(
                f"The slide encoder overflowed in {self._spec.dtype}; use another dtype in its manifest."
            )
        return np.asarray(half)

    def _grid_px(self, tile_px: int, tile_px_level0: float | None) -> int:
        """Which level-0 pixels make one step on the position grid: see LongnetPool.tile_stride_px_level."""
        if self._spec.tile_stride_px_level == "tile_px":
            return tile_px
        assert tile_px_level0 is not None, "features without it are refused for such a model"
        return stride_px_level0(tile_px_level0)


def trying_twice(compute: Callable[[], _Result], device: torch.device, tiles: int) -> _Result:
    """What `compute` gives, at its second try where the device's memory does not do; raises DeviceOutOfMemory then."""
    try:
        with translated_device_errors():
            return compute()
    except DeviceOutOfMemory:
        log.warning("The device's memory does not do for a slide of %d tiles; once again.", tiles)
    # What torch kept for later is in pieces; and the tile encoder's batch in hand is over by now.
    empty_cache(device)
    with translated_device_errors():
        return compute()


@contextmanager
def asked_all_along(model: nn.Module, ask: Callable[[], None]) -> Iterator[None]:
    """Calls `ask` before every step of the model: a projection or a norm of two thousand tokens, a layer."""

    def asks(*_: object) -> None:
        ask()

    handles = [module.register_forward_pre_hook(asks) for module in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def empty_slide_encoder(spec: LongnetPool) -> LongNetViT:
    """The model on the meta device: names and shapes, no numbers."""
    with torch.device("meta"):
        return new_slide_encoder(spec)


def new_slide_encoder(spec: LongnetPool) -> LongNetViT:
    """The model with random numbers, to be trained."""
    # tile_size stays the published 256: it fixes the attention's segment lengths, `encode` gives the grid's step.
    return LongNetViT(
        in_chans=spec.in_chans,
        embed_dim=spec.embed_dim,
        depth=spec.depth,
        num_heads=spec.num_heads,
        mlp_ratio=spec.mlp_ratio,
        slide_ngrids=spec.slide_ngrids,
        max_wsi_size=spec.max_wsi_size,
        dilated_ratios=spec.dilated_ratios,
    )


def _build(spec: LongnetPool, weights: Path, device: torch.device) -> LongNetViT:
    model = empty_slide_encoder(spec)
    load_weights(model, weights, "slide encoder")
    model = model.to(device=device, dtype=torch.float32).eval().requires_grad_(False)
    # Residual stream, layer norms and softmaxes stay fp32 whatever the manifest says.
    model.use_matmul_dtype(TORCH_DTYPES[spec.dtype])
    return model
