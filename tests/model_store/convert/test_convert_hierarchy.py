"""The published checkpoints of MLLM-HWSI's networks become those networks, or are refused with the reason."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from encoders.hierarchical.cell_fusion import CellFusion
from encoders.hierarchical.conch import ConchImage
from encoders.hierarchical.projector import HierarchicalProjector
from encoders.hierarchical.vit4k import Vit4k
from encoders.hierarchical.vit256 import Vit256
from encoders.load_weights import load_weights
from model_store.convert.convert_hierarchy import (
    convert_conch,
    convert_dinov2_blocks,
    convert_hipt,
    convert_projector,
)
from model_store.errors import ModelError

Weights = dict[str, Tensor]


def vit256() -> nn.Module:
    return Vit256(embed_dim=12, depth=1, num_heads=2)


def vit4k() -> nn.Module:
    return Vit4k(in_dim=12, embed_dim=12, depth=1, num_heads=2)


def conch() -> nn.Module:
    return ConchImage(width=12, depth=1, num_heads=2)


def fusion() -> nn.Module:
    return CellFusion(embed_dim=12, depth=1, num_heads=2)


def projector() -> nn.Module:
    return HierarchicalProjector(llm_dim=8, hidden_dim=4, query_tokens=2)


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(v.shape) for name, v in module.state_dict().items()}


def weights(module: nn.Module) -> Weights:
    return {name: torch.randn(shape) for name, shape in shapes(module).items()}


def dino(of: Mapping[str, Tensor]) -> dict[str, Any]:
    """As DINO's trainer saves it: schedules leave numbers of numpy's in the optimiser."""
    head = {"head.mlp.0.weight": torch.randn(4, 12), "head.last_layer.weight_g": torch.randn(4, 1)}
    teacher = {f"backbone.{name}": v for name, v in of.items()} | head
    return {
        "student": {f"module.{name}": v + 1 for name, v in teacher.items()},
        "teacher": teacher,
        "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(0.1), "params": [0]}]},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small"),
    }


def coca(of: Mapping[str, Tensor]) -> Weights:
    return {f"visual.{name}": v for name, v in of.items()} | {
        "visual.attn_pool_caption.query": torch.randn(256, 4),
        "visual.ln_caption.weight": torch.randn(4),
        "text.token_embedding.weight": torch.randn(7, 4),
        "text_decoder.resblocks.0.ln_1.weight": torch.randn(4),
        "logit_scale": torch.tensor(2.0),
    }


def dinov2(of: Mapping[str, Tensor]) -> Weights:
    return dict(of) | {
        "pos_embed": torch.randn(1, 5, 12),
        "mask_token": torch.randn(1, 12),
        "patch_embed.proj.bias": torch.ones(12),
    }


def vl_projector(of: Mapping[str, Tensor]) -> dict[str, Any]:
    return {"vl_projector_state_dict": dict(of), "projector_cfg": {"llm_dim": 8}}


def as_projector(file: Path, expected: dict[str, tuple[int, ...]], _: str, path: Path) -> object:
    return convert_projector(file, expected, path)


Case = tuple[Callable[[], nn.Module], Callable[[Mapping[str, Tensor]], dict[str, Any]], Callable[..., Any]]
CASES: dict[str, Case] = {
    "vit256": (vit256, dino, convert_hipt),
    "vit4k": (vit4k, dino, convert_hipt),
    "conch": (conch, coca, convert_conch),
    "dinov2": (fusion, dinov2, convert_dinov2_blocks),
    "projector": (projector, vl_projector, as_projector),
}
each = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@each
def test_the_network_has_the_published_weights(case: Case, tmp_path: Path) -> None:
    make, publish, convert = case
    given = weights(make())
    torch.save(publish(given), tmp_path / "published.pth")

    convert(tmp_path / "published.pth", shapes(make()), "float32", tmp_path / "served.safetensors")

    served = make()
    load_weights(served, tmp_path / "served.safetensors", "network")
    state = served.state_dict()
    assert state.keys() == given.keys()
    assert all(torch.equal(state[name], value) for name, value in given.items())


@pytest.mark.parametrize("name", ["vit4k", "conch", "dinov2"])
def test_what_nothing_reads_is_dropped_by_name(name: str, tmp_path: Path) -> None:
    make, publish, convert = CASES[name]
    given = publish(weights(make()))
    torch.save(given, tmp_path / "published.pth")
    dropped = convert(tmp_path / "published.pth", shapes(make()), "float32", tmp_path / "served.safetensors")
    published = given.get("teacher", given)
    assert len(dropped) == len(published) - len(shapes(make()))
    assert len(dropped) >= 2


@each
@pytest.mark.parametrize("fault", ["missing", "left over", "another shape", "not finite"])
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(case: Case, fault: str, tmp_path: Path) -> None:
    make, publish, convert = case
    given = weights(make())
    name = sorted(name for name in given if given[name].dim() == 1)[0]
    if fault == "missing":
        del given[name]
    elif fault == "left over":
        name = "register_tokens"
        given[name] = torch.randn(1, 4, 12)
    elif fault == "another shape":
        given[name] = torch.randn(5)
    else:
        given[name][0] = torch.nan
    torch.save(publish(given), tmp_path / "published.pth")
    with pytest.raises(ModelError, match=name):
        convert(tmp_path / "published.pth", shapes(make()), "float32", tmp_path / "served.safetensors")


@each
def test_a_file_of_something_else_is_refused(case: Case, tmp_path: Path) -> None:
    make, _, convert = case
    for content in ({"teacher": 3, "state_dict": [1], "vl_projector_state_dict": None}, [1, 2], {"epoch": 3}):
        torch.save(content, tmp_path / "published.pth")
        with pytest.raises(ModelError, match=r"published\.pth"):
            convert(tmp_path / "published.pth", shapes(make()), "float32", tmp_path / "served.safetensors")


def test_weights_that_somebody_took_out_already_are_taken_too(tmp_path: Path) -> None:
    save_file(dinov2(weights(fusion())), tmp_path / "model.safetensors")
    convert_dinov2_blocks(tmp_path / "model.safetensors", shapes(fusion()), "float32", tmp_path / "fusion.safetensors")
    torch.save({f"module.backbone.{name}": v for name, v in weights(vit256()).items()}, tmp_path / "bare.pth")
    convert_hipt(tmp_path / "bare.pth", shapes(vit256()), "float16", tmp_path / "vit256.safetensors")
    light = {f"module.{name}": v for name, v in coca(weights(conch())).items()}
    torch.save({"state_dict": light}, tmp_path / "light.ckpt")
    convert_conch(tmp_path / "light.ckpt", shapes(conch()), "float32", tmp_path / "conch.safetensors")


def test_a_projector_that_was_never_trained_is_told_of(tmp_path: Path) -> None:
    built = projector()
    torch.save(vl_projector(built.state_dict()), tmp_path / "vl_projector.pt")
    (warning,) = convert_projector(tmp_path / "vl_projector.pt", shapes(built), tmp_path / "served.safetensors")
    assert "never trained" in warning

    trained = built.state_dict()
    trained["fusion.out_norm.bias"][3] = 1e-8
    torch.save(vl_projector(trained), tmp_path / "vl_projector.pt")
    assert convert_projector(tmp_path / "vl_projector.pt", shapes(built), tmp_path / "trained.safetensors") == []


def test_a_pickle_that_would_run_something_is_not_read(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return (print, ("run",))

    torch.save({"teacher": Runs()}, tmp_path / "published.pth")
    with pytest.raises(ModelError, match="more than tensors"):
        convert_hipt(tmp_path / "published.pth", shapes(vit256()), "float32", tmp_path / "served.safetensors")
