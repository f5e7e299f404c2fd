"""The device's speed at multiplying matrices: one large square product, and the products of a model.

The first is what a data sheet promises, less what power and heat take; the second is what an encoder could reach if
everything but its matrix products cost nothing.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from encoders.tile_encoder.model import empty_tile_encoder
from model_store.contracts.tile_encoder import TimmTileEncoder


@dataclass(frozen=True)
class Product:
    """[rows, inner] times [inner, columns], `count` times."""

    rows: int
    inner: int
    columns: int
    count: int = 1

    @property
    def flop(self) -> int:
        """Floating-point operations: two per multiplication."""
        return 2 * self.rows * self.inner * self.columns * self.count


class Products:
    """Products on a device, ready to run."""

    def __init__(self, products: list[Product], dtype: torch.dtype, device: torch.device) -> None:
        self.flop = sum(product.flop for product in products)
        # Random, not zeros: a GPU draws less power, and runs faster, on zeros.
        self._operands = [
            (_random(p.rows, p.inner, dtype, device), _random(p.columns, p.inner, dtype, device), p.count)
            for p in products
        ]

    @torch.inference_mode()
    def run(self) -> None:
        """Queues them all."""
        for left, right, count in self._operands:
            for _ in range(count):
                torch.mm(left, right.t())


def square(side: int, count: int) -> list[Product]:
    """One large product, several times."""
    return [Product(side, side, side, count)]


def linear_products(spec: TimmTileEncoder) -> list[Product]:
    """What the linear layers of one batch multiply, as the published model does it; equal ones are counted."""
    model = empty_tile_encoder(spec)
    found: list[tuple[int, int, int]] = []
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(partial(_note, found))
    _run_empty(model, spec, spec.batch_tiles)
    return [Product(*shape, found.count(shape)) for shape in dict.fromkeys(found)]


def flop_per_tile(spec: TimmTileEncoder) -> int:
    """Of the published model's whole forward pass, whatever of it we save."""
    with FlopCounterMode(display=False) as counter:
        _run_empty(empty_tile_encoder(spec), spec, 1)
    return int(counter.get_total_flops())


def _note(found: list[tuple[int, int, int]], layer: nn.Linear, inputs: tuple[Tensor, ...], _: Tensor) -> None:
    found.append((inputs[0].numel() // layer.in_features, layer.in_features, layer.out_features))


@torch.inference_mode()
def _run_empty(model: nn.Module, spec: TimmTileEncoder, batch_tiles: int) -> None:
    model.eval()(torch.empty(batch_tiles, 3, spec.input_px, spec.input_px, device="meta"))


def _random(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.randn(rows, columns, device=device, dtype=torch.float32).to(dtype)
