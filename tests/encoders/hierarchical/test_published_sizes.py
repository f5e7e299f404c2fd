"""The networks of MLLM-HWSI at their published sizes, where the reference vectors are (../shared/hwsi).

Names and shapes always; the rest takes minutes and is asked for: `make hierarchy`.
"""

import hashlib
import os
from typing import Any

import numpy as np
import pytest
import torch
from hwsi_vectors import VECTORS, cases_of, needs_vectors, published_names, recipe, vectors_of

from encoders.hierarchical.cell_fusion import CellFusion
from encoders.hierarchical.cellvit import CellVit256
from encoders.hierarchical.conch import ConchImage
from encoders.hierarchical.encode import HierarchicalEncoder
from encoders.hierarchical.plan_regions import plan_regions
from encoders.hierarchical.projector import HierarchicalProjector
from encoders.hierarchical.vit4k import Vit4k
from encoders.hierarchical.vit256 import Vit256

pytestmark = needs_vectors
minutes = pytest.mark.skipif("EYEPIECE_LONG_TESTS" not in os.environ, reason="takes minutes: make hierarchy")

PARTS: dict[str, Any] = {
    "vit256": Vit256,
    "vit4k": Vit4k,
    "conch": ConchImage,
    "cell_fusion": CellFusion,
    "projector": HierarchicalProjector,
}


@pytest.mark.parametrize("part", PARTS)
def test_tensors_have_the_published_names_and_shapes(part: str) -> None:
    with torch.device("meta"):
        own = {name: list(v.shape) for name, v in PARTS[part]().state_dict().items()}
    assert own == published_names(part)


@minutes
@pytest.mark.parametrize(("part", "tolerance"), [("vit256", 1e-5), ("conch", 2e-6)])
def test_pictures_have_the_published_vectors(part: str, tolerance: float) -> None:
    case, draw = cases_of(part), recipe()
    tiles = np.stack([_tile(tile) for tile in case["tiles"]])
    assert hashlib.sha256(tiles.tobytes()).hexdigest() == case["input_sha256"]
    model = PARTS[part]()
    weights = {n: draw.weight(part, n, tuple(v.shape), case["weight_seed"]) for n, v in model.state_dict().items()}
    model.load_state_dict({name: torch.from_numpy(v) for name, v in weights.items()}, strict=True)
    with torch.inference_mode():
        got = model.eval()(torch.from_numpy(tiles))
    assert (got - vectors_of(part)["features"]).abs().max() <= tolerance


@minutes
@pytest.mark.parametrize("name", cases_of("regions") if VECTORS.is_dir() else ["none"])
def test_regions_of_large_overviews_are_the_published_ones(name: str) -> None:
    case = cases_of("regions")[name]
    overview = recipe().overview(case["seed"], *case["overview"], edge=case["edge"])
    got = plan_regions(overview, *case["level0"], tuple(case["step_level"]))
    assert np.array_equal(got, vectors_of("regions")[f"{name}.valid"].numpy())


@minutes
@pytest.mark.parametrize("name", ["three1024", "region4096"])
def test_pixels_of_regions_become_the_published_rows(name: str) -> None:
    cases, draw = cases_of("end_to_end"), recipe()
    case, seed = cases["cases"][name], cases["weight_seed"]
    small = {part: PARTS[part](**cases[part]) for part in ("vit256", "vit4k", "conch", "projector")}
    networks = {**small, "cellvit": CellVit256(), "dinov2": CellFusion()}
    for part, network in networks.items():
        weights = {n: draw.weight(part, n, tuple(v.shape), seed) for n, v in network.state_dict().items()}
        weights = draw.wired_cellvit(weights) if part == "cellvit" else weights
        network.load_state_dict({n: torch.from_numpy(np.asarray(v)) for n, v in weights.items()}, strict=True)
        network.eval().requires_grad_(False)
    regions = [draw.region(region_seed, case["px"] // 256) for region_seed in case["seeds"]]
    for picture in regions:
        picture[:256, -256:] = picture[256:512, 256:512]

    order = (networks[part] for part in ("vit256", "vit4k", "conch", "cellvit", "dinov2", "projector"))
    got = HierarchicalEncoder(*order, dissimilar=case["n"], keep=case["k"]).encode(regions)

    vectors = vectors_of("end_to_end")
    for level, tolerance in {"region": 5e-5, "slide": 5e-5, "patch": 2e-6, "cell": 5e-5, "rows": 5e-5}.items():
        assert (getattr(got, level) - vectors[f"{name}.{level}"]).abs().max() <= tolerance, level
    # Two equal pictures may stand for each other.
    assert (got.patch_index != vectors[f"{name}.chosen"]).sum() <= 2


def _tile(tile: dict[str, Any]) -> np.ndarray:
    draw, seed = recipe(), tile["seed"]
    if tile["kind"] == "noise":
        return np.random.RandomState(seed).randint(0, 256, (256, 256, 3)).astype(np.uint8)
    picture: np.ndarray = draw.tile(seed, 256, draw.nuclei(seed, tile["cells"], 256), glass=tile.get("glass", 0.0))
    return picture
