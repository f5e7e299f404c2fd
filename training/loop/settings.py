"""Settings of a training loop: its length and its speed; the learning rate is a pure function of the step."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

# These change how a run is watched and fed, never its numbers.
_WITHOUT_EFFECT: Final = ("checkpoint_every", "log_every", "prefetch_workers")
_LAST_RATE: Final = 0.05


@dataclass(frozen=True)
class LoopSettings:
    """One stage's optimisation. A step is one optimiser step; `accumulate` batches per process make one."""

    stage: str
    steps: int
    learning_rate: float
    warmup_steps: int = 100
    # "linear": constant, then from this share of the steps on falling to 5 %. "cosine": to 0 from the warm-up's end.
    schedule: Literal["linear", "cosine"] = "linear"
    decay_from: float = 0.7
    # (text, factor) pairs: a parameter whose name contains the text learns at `factor` times the rate; first match.
    rate_factors: tuple[tuple[str, float], ...] = ()
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = 1.0
    accumulate: int = 1
    precision: Literal["bf16", "fp32"] = "bf16"
    seed: int = 0
    checkpoint_every: int = 200
    log_every: int = 20
    # Processes that make batches ahead; 0 makes them in the training process.
    prefetch_workers: int = 1

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The settings that decide the resulting weights."""
        return {name: value for name, value in asdict(self).items() if name not in _WITHOUT_EFFECT}


def learning_rate(settings: LoopSettings, step: int) -> float:
    """The rate of optimiser step `step` (from 0), before any rate factor."""
    warmed = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    decay = _cosine if settings.schedule == "cosine" else _linear
    return settings.learning_rate * warmed * decay(settings, step)


def rate_factor(settings: LoopSettings, name: str) -> float:
    """What the rate of the parameter `name` is multiplied by."""
    return next((factor for text, factor in settings.rate_factors if text in name), 1.0)


def _linear(settings: LoopSettings, step: int) -> float:
    start = settings.decay_from * settings.steps
    fallen = max(0.0, step - start) / max(1.0, settings.steps - start)
    return 1.0 - (1.0 - _LAST_RATE) * fallen


def _cosine(settings: LoopSettings, step: int) -> float:
    start = settings.warmup_steps
    passed = max(0, step - start) / max(1, settings.steps - start)
    return 0.5 * (1.0 + math.cos(math.pi * passed))
