"""Reference vectors of MLLM-HWSI's stages, made by its public code, where they are: ../shared/hwsi."""

import importlib.util
import json
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

VECTORS = Path(__file__).parents[3] / "shared/hwsi"
needs_vectors = pytest.mark.skipif(not VECTORS.is_dir(), reason="the reference vectors (../shared/hwsi) are not here")


def cases_of(stage: str) -> dict[str, Any]:
    """What `meta.json` says of a stage; empty where the vectors are not."""
    meta: dict[str, Any] = json.loads((VECTORS / "meta.json").read_text()) if VECTORS.is_dir() else {}
    return meta.get(stage, {})


def published_names(part: str) -> dict[str, list[int]]:
    """Shapes by published tensor name."""
    names: dict[str, list[int]] = json.loads((VECTORS / "names.json").read_text())[part]["tensors"]
    return names


@cache
def vectors_of(stage: str) -> dict[str, Tensor]:
    """By `<case>.<name>`."""
    return {name.removeprefix(f"{stage}."): v for name, v in load_file(VECTORS / f"{stage}.safetensors").items()}


@cache
def recipe() -> ModuleType:
    """How weights and inputs of the vectors were drawn."""
    spec = importlib.util.spec_from_file_location("hwsi_recipe", VECTORS / "recipe.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
