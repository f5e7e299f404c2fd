"""The gap between the tile encoder and 75 % of the matrix ceiling, and what to look at first. Reads outcomes only."""

from collections.abc import Sequence
from typing import Final

from benchmarks.gpu_check.results import Outcome

# `tile_speed` and `tile_overlap` call their numbers so.
TARGET: Final = 0.75
REACHED: Final = "share of the matrix ceiling"
PRODUCTS_ALONE: Final = "share of the matrix ceiling, the model's products alone"
COMPILING: Final = "compiled ÷ uncompiled"
DEVICE_IDLE: Final = "device's idle share"
COPIES_BESIDE: Final = "copies beside kernels, share"
# Compiling fuses what multiplies nothing, a fifth of the time of the published model by its memory traffic.
_LEAST_FROM_COMPILING: Final = 1.05


def time_in(kind: str) -> str:
    """The name of the number that says which share of the device's time a kind of kernel took."""
    return f"time in {kind}, share"


def explain_gap(outcomes: Sequence[Outcome]) -> list[str]:
    """Lines for who ran it; nothing where the speed was not measured."""
    found = {number.name: number.value for outcome in outcomes for number in outcome.numbers}
    reached = found.get(REACHED)
    if reached is None:
        return []
    lines = [f"The tile encoder reaches {reached:.0%} of what this device multiplies; the target is {TARGET:.0%}."]
    return lines if reached >= TARGET else lines + _hints(found)


def _hints(found: dict[str, float]) -> list[str]:
    """The largest loss first, each with its place to look."""
    reached, alone = found[REACHED], found.get(PRODUCTS_ALONE, 1.0)
    losses = [
        (
            1 - alone,
            "the shapes of the model's own products: try another batch (benchmarks.tile_encoder --batch 256)",
        ),
        (
            found.get(DEVICE_IDLE, 0.0),
            "the device waits for the host: what does `one small operation` of `ceilings` take, is the model compiled?",
        ),
        (
            found.get(time_in("everything else"), 0.0),
            "kernels that multiply nothing (norms, activations, sums): which are not fused?",
        ),
        (found.get(time_in("attention"), 0.0), "attention, 2 % of the operations: which kernel runs?"),
        (
            1 - found.get(COPIES_BESIDE, 1.0),
            "copies wait for kernels (encoders/tile_encoder/staging.py); a share of the copies, not of the time",
        ),
    ]
    told = [f"{loss:.0%}: {text}" for loss, text in sorted(losses, reverse=True) if loss >= 0.02]
    if found.get(COMPILING, _LEAST_FROM_COMPILING) < _LEAST_FROM_COMPILING:
        told.insert(
            0, f"Compiled it is only {found[COMPILING]:.2f} times as fast as uncompiled; is it compiled at all?"
        )
    if DEVICE_IDLE not in found:
        told.append("Run `tile_overlap` too: it says on what the device spends its time.")
    rest = f"The model's products alone reach {alone:.0%}: {alone - reached:.0%} are lost beside them."
    return [rest, "What to look at, the largest first:", *(f"  {line}" for line in told)]
