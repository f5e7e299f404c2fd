"""The checks in their order, each a function in a file of its own and its time limit. Imports none of them."""

from dataclasses import dataclass
from importlib import import_module
from typing import Final

from benchmarks.gpu_check.results import Finding
from benchmarks.gpu_check.setting import Setting


@dataclass(frozen=True)
class Check:
    """A function of a module that is given the setting and returns a Finding or raises CheckSkipped.

    `limit_s` is several times what it should take on a GPU: beyond it something hangs.
    """

    name: str
    module: str
    limit_s: float
    function: str = "check"

    def run(self, setting: Setting) -> Finding:
        """Imports what it needs and runs, here and now; raises whatever goes wrong."""
        finding: Finding = getattr(import_module(self.module), self.function)(setting)
        return finding


@dataclass(frozen=True)
class Suite:
    """`device` is asked first, and when it does not pass nothing else runs.

    `warm` are modules that a check's process on a CPU is born with, imported in this order.
    """

    device: Check
    checks: tuple[Check, ...]
    warm: tuple[str, ...]


def _here(name: str, limit_s: float) -> Check:
    return Check(name, f"benchmarks.gpu_check.{name}", limit_s)


SUITE: Final = Suite(
    device=_here("device", 120),
    checks=(
        _here("ceilings", 120),
        _here("position_grid", 60),
        _here("slide_projector", 120),
        _here("ngram_ban", 120),
        _here("repetition_penalty", 120),
        _here("tile_parity", 300),
        _here("tile_float8", 300),
        _here("longnet_parity", 300),
        _here("trainer_loss", 300),
        _here("longnet_scale", 300),
        # What is compiled here is found again by the two below.
        _here("tile_compile", 900),
        _here("tile_overlap", 600),
        _here("tile_speed", 900),
        _here("marked_tests", 600),
    ),
    # torchvision's operators are declared by the first, which transformers needs.
    warm=(
        "encoders.tile_encoder.encode",
        "training.language_model.slide_language_model",
        "transformers.models.llava.modeling_llava",
    ),
)
