"""The levels of a slide against what the public code of MLLM-HWSI makes of the same weights and inputs.

golden/levels.safetensors: outputs of the unmodified BasitAlawode/HWSI-MLLM at 68f33ac, with mahmoodlab/CONCH at 141cc09
and facebookresearch/dinov2 at b8931f7, on the CPU in float32, under drawn weights; no published weights are in it.
`tests/support/hwsi_recipe.py` draws the same weights and inputs again; the cases, with the SHA-256 of each input, are
in the file's metadata. At the published sizes: test_published_sizes.py.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import hwsi_recipe as recipe
import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from encoders.hierarchical.cell_fusion import CellFusion
from encoders.hierarchical.choose_patches import choose_patches
from encoders.hierarchical.conch import ConchImage
from encoders.hierarchical.enlarge import enlarge
from encoders.hierarchical.plan_regions import plan_regions
from encoders.hierarchical.projector import HierarchicalProjector
from encoders.hierarchical.vit4k import Vit4k
from encoders.hierarchical.vit256 import Vit256

with safe_open(Path(__file__).parent / "golden" / "levels.safetensors", framework="pt") as file:
    CASES: dict[str, Any] = json.loads(file.metadata()["cases"])
    GOLDEN: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping


def filled(module: torch.nn.Module, part: str, seed: int) -> Any:
    state = {name: recipe.weight(part, name, tuple(v.shape), seed) for name, v in module.state_dict().items()}
    module.load_state_dict({name: torch.from_numpy(v) for name, v in state.items()}, strict=True)
    return module.eval().requires_grad_(False)


def drawn(array: np.ndarray, case: dict[str, Any]) -> Tensor:
    """The input, which is the one that the reference saw."""
    assert hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() == case["input_sha256"]
    return torch.from_numpy(array)


def near(got: Tensor, want: Tensor, tolerance: float) -> None:
    assert got.shape == want.shape
    assert (got - want).abs().max() <= tolerance


@pytest.mark.parametrize("name", CASES["regions"])
def test_regions_are_the_published_ones_in_their_order(name: str) -> None:
    case = CASES["regions"][name]
    overview = recipe.overview(case["seed"], *case["overview"], edge=case["edge"])
    drawn(overview, case)
    got = plan_regions(overview, *case["level0"], tuple(case["step_level"]))
    assert np.array_equal(got, GOLDEN[f"regions.{name}.valid"].numpy())


def test_pictures_are_enlarged_to_the_published_bits() -> None:
    case = CASES["enlarge"]
    noise = np.random.RandomState(1).randint(0, 256, (256, 256, 3)).astype(np.uint8)
    tiles = np.stack([noise, recipe.tile(2, 256, recipe.nuclei(2, 20, 256)), np.full_like(noise, 255)])
    got = enlarge(drawn(tiles, case), 448).numpy()
    assert np.array_equal(got[:, ::32, ::32], GOLDEN["enlarge.sample"].numpy())
    assert [hashlib.sha256(picture.tobytes()).hexdigest() for picture in got] == case["output_sha256"]


def test_a_region_of_any_grid_has_the_published_vector() -> None:
    cases = CASES["vit4k"]
    model = filled(Vit4k(), "vit4k", cases["weight_seed"])
    for name in ("full", "small"):
        case = cases[name]
        pictures = drawn(recipe.rows(case["seed"], case["regions"], case["grid"] ** 2, 384), case)
        near(model(pictures), GOLDEN[f"vit4k.{name}"], 1e-5)


@pytest.mark.parametrize("name", CASES["choose"])
def test_patches_are_chosen_as_published(name: str) -> None:
    case = CASES["choose"][name]
    draw = recipe.unit_rows if case["kind"] == "unit" else recipe.sign_rows
    if case["kind"] == "unit":
        features = recipe.unit_rows(case["seed"], case["regions"], case["patches"], 512)
    else:
        seeds = [case["seed"] + 1000 * i for i in range(case["regions"])]
        features = np.stack([recipe.sign_rows(seed, case["patches"], of=case["of"]) for seed in seeds])
    given = torch.from_numpy(draw(case["anchor_seed"], 1, 512)[0]) if "anchor_seed" in case else None
    got = choose_patches(drawn(features, case), anchor=given)

    assert torch.equal(got.dissimilar, GOLDEN[f"choose.{name}.dissimilar"].long())
    assert torch.equal(got.anchor, torch.from_numpy(features)[0, got.dissimilar[0, 0]] if given is None else given)
    want = GOLDEN[f"choose.{name}.chosen"].long()
    assert got.chosen.shape == want.shape
    for region, ours, theirs in zip(torch.from_numpy(features), got.chosen, want, strict=True):
        # Nobody defines the order of patches that are equally like the anchor.
        likeness = torch.nn.functional.cosine_similarity(region.double(), got.anchor.double(), dim=-1)
        assert len(set(ours.tolist())) == len(ours)
        assert torch.equal(ours, theirs) or (likeness[ours] - likeness[theirs]).abs().max() <= 1e-6


def test_the_cells_of_a_patch_are_fused_as_published() -> None:
    case = CASES["cell_fusion"]
    cells = [
        torch.from_numpy(recipe.rows(seed, count, 384))
        for seed, count in zip(case["seeds"], case["cells"], strict=True)
    ]
    drawn(cells[0].numpy(), case)
    got = filled(CellFusion(), "dinov2", case["weight_seed"])(cells)
    near(got, GOLDEN["cell_fusion.features"], 1e-5)
    assert not got[case["cells"].index(0)].any()


@pytest.mark.parametrize("name", CASES["projector"])
def test_levels_become_the_published_rows(name: str) -> None:
    case = CASES["projector"][name]
    regions, patches = case["r"], case["c"]
    region = torch.from_numpy(recipe.rows(case["seed"], regions, 192))
    patch = torch.from_numpy(recipe.unit_rows(case["seed"] + 1, regions, patches, 512))
    cell = recipe.rows(case["seed"] + 2, regions, patches, 384)
    for place in case.get("zero", ()):
        cell[tuple(place)] = 0
    model = HierarchicalProjector(llm_dim=case["llm"], hidden_dim=case["hidden"])
    model = filled(model, "projector", CASES["projector_weight_seed"])
    levels = (GOLDEN[f"projector.{name}.slide"], region, patch, drawn(cell, case))
    near(model.fuse(*levels), GOLDEN[f"projector.{name}.fused"], 1e-5)
    near(model(*levels), GOLDEN[f"projector.{name}.rows"], 1e-5)


def test_pixels_become_the_published_patches_and_regions_with_small_networks() -> None:
    case = CASES["small"]
    parts = {"vit256": Vit256, "vit4k": Vit4k, "conch": ConchImage}
    vit256, vit4k, conch = (filled(make(**case[part]), part, case["weight_seed"]) for part, make in parts.items())
    picture = recipe.region(case["seed"], 4)
    picture[:256, -256:] = picture[256:512, 256:512]  # two equal pictures
    pixels = drawn(picture, case).unflatten(1, (4, 256)).unflatten(0, (4, 256)).transpose(1, 2).flatten(0, 1)

    near(vit4k(vit256(pixels)[None]), GOLDEN["small.region"], 1e-5)
    features = conch(pixels)
    near(features[None] @ torch.from_numpy(recipe.rows(7, 512, 4)), GOLDEN["small.patch_probe"], 2e-5)
    choice = choose_patches(features[None], dissimilar=case["dissimilar"], keep=case["keep"])
    near(features[choice.chosen], GOLDEN["small.patch"], 2e-6)
