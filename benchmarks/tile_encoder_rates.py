"""Results of benchmarks/tile_encoder.py: speeds, and shares of what the device multiplied in the same round."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from benchmarks.matrix_ceiling import flop_per_tile
from benchmarks.take_turns import Spread, Turns, spread
from benchmarks.write_results import table
from model_store.contracts.tile_encoder import TimmTileEncoder

SQUARE: Final = "square product"
OWN_PRODUCTS: Final = "the model's products"
CEILINGS: Final = (SQUARE, OWN_PRODUCTS)


@dataclass(frozen=True)
class Plan:
    """What is measured where: `rounds` times `batches` batches by each method."""

    model: str
    spec: TimmTileEncoder
    device: torch.device
    batches: int
    rounds: int

    @property
    def tiles(self) -> int:
        """How many tiles a method encodes in a round."""
        return self.batches * self.spec.batch_tiles


@dataclass(frozen=True)
class Agreement:
    """A method's features beside those of the model in float32."""

    least_cosine: float
    largest_difference: float


@dataclass(frozen=True)
class Rate:
    """One row of the table; shares are of a ceiling in the same round."""

    method: str
    tiles_per_s: Spread
    tflop_per_s: Spread
    shares: dict[str, Spread]


def rates_of(plan: Plan, turns: Turns, ceiling_flop: Mapping[str, int]) -> list[Rate]:
    """Of ceilings and methods alike; a ceiling has no tiles."""
    flop = dict.fromkeys(turns.costs, plan.tiles * flop_per_tile(plan.spec)) | dict(ceiling_flop)
    return [_rate(name, plan, turns, flop) for name in turns.costs]


def rates_table(rates: list[Rate], agreements: Mapping[str, Agreement], ready_s: Mapping[str, float]) -> str:
    """Medians of the rounds with the slowest and the fastest; shares in per cent."""
    header = ["method", "tiles/s", "TFLOP/s", *(f"% of {ceiling}" for ceiling in CEILINGS), "least cosine", "ready s"]
    rows = []
    for rate in rates:
        name, agreement = rate.method, agreements.get(rate.method)
        rows.append(
            [
                name,
                "" if name in CEILINGS else _shown(rate.tiles_per_s),
                _shown(rate.tflop_per_s),
                *(_shown(rate.shares[ceiling], 100) for ceiling in CEILINGS),
                f"{agreement.least_cosine:.6f}" if agreement else "",
                f"{ready_s[name]:.1f}" if name in ready_s else "",
            ]
        )
    return table(header, rows)


def _rate(name: str, plan: Plan, turns: Turns, flop: Mapping[str, int]) -> Rate:
    seconds = {each: [cost.wall_s for cost in costs] for each, costs in turns.costs.items()}
    speeds = {each: np.array([flop[each] / wall / 1e12 for wall in seconds[each]]) for each in seconds}
    return Rate(
        method=name,
        tiles_per_s=spread([plan.tiles / wall for wall in seconds[name]]),
        tflop_per_s=spread(speeds[name].tolist()),
        shares={ceiling: spread((speeds[name] / speeds[ceiling]).tolist()) for ceiling in CEILINGS},
    )


def _shown(value: Spread, factor: float = 1) -> str:
    return f"{value.median * factor:.3g} ({value.least * factor:.3g}–{value.most * factor:.3g})"
