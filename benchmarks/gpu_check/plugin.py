"""Those modules of the vLLM plugin that know nothing of vLLM; it is a distribution of its own and need not be here."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final

_FOLDER: Final = Path(__file__).resolve().parents[2] / "vllm_plugin"


def plugin_module(name: str) -> ModuleType:
    """`eyepiece_vllm.<name>` of this repository."""
    if str(_FOLDER) not in sys.path:
        sys.path.append(str(_FOLDER))
    return import_module(f"eyepiece_vllm.{name}")
