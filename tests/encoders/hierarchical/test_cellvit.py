"""CellViT-256 computes what the public code does, under its names, and its maps lead to cells."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_cells import cellvit_weight, drawn_pictures
from hwsi_vectors import cases_of, needs_vectors, published_names, recipe, vectors_of
from safetensors.torch import load_file
from torch import Tensor

from encoders.errors import EncoderOverflowed
from encoders.hierarchical.cell_tokens import cell_tokens
from encoders.hierarchical.cellvit import CellMaps, CellVit256
from encoders.hierarchical.find_cells import find_cells

GOLDEN = load_file(Path(__file__).parent / "golden" / "cells.safetensors")
MAPS = ("nucleus", "distance", "kind")
SMALL = {"cell_kinds": 4, "embed_dim": 24, "depth": 4, "num_heads": 2, "channels": (24, 16, 12, 8)}


def loaded(state: dict[str, Tensor], **sizes: object) -> CellVit256:
    with torch.device("meta"):
        model = CellVit256(**sizes)  # type: ignore[arg-type]
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def shapes(**sizes: object) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = CellVit256(**sizes)  # type: ignore[arg-type]
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def small() -> CellVit256:
    return loaded({name: cellvit_weight(name, shape) for name, shape in shapes(**SMALL).items()}, **SMALL)


def test_maps_and_tokens_are_those_of_the_public_code() -> None:
    model = loaded({name: cellvit_weight(name, shape) for name, shape in shapes().items()})

    maps = model(torch.from_numpy(drawn_pictures(2, 64, 96)))

    for name in MAPS:
        whole = getattr(maps, name)
        torch.testing.assert_close(whole[:, :, 1::4, 2::4], GOLDEN[f"cellvit.{name}"], atol=2e-5, rtol=0)
        torch.testing.assert_close(whole.mean((2, 3)), GOLDEN[f"cellvit.{name}_mean"], atol=2e-5, rtol=0)
    torch.testing.assert_close(maps.tokens[:, ::8], GOLDEN["cellvit.tokens"], atol=5e-5, rtol=0)


@needs_vectors
def test_tensors_have_the_published_names_and_shapes() -> None:
    assert {name: list(shape) for name, shape in shapes().items()} == published_names("cellvit")


@needs_vectors
@pytest.mark.skipif("EYEPIECE_LONG_TESTS" not in os.environ, reason="half a minute; `make hierarchy`")
def test_maps_and_tokens_are_those_of_the_reference_vectors() -> None:
    case, wanted = cases_of("cellvit"), vectors_of("cellvit")
    drawn = [(t["seed"], recipe().nuclei(t["seed"], t["cells"], 256)) for t in case["tiles"]]
    tiles = np.stack([recipe().tile(seed, 256, nuclei) for seed, nuclei in drawn])
    state = {name: recipe().weight("cellvit", name, shape, case["weight_seed"]) for name, shape in shapes().items()}
    model = loaded({name: torch.from_numpy(np.asarray(v)) for name, v in recipe().wired_cellvit(state).items()})

    maps = model(torch.from_numpy(tiles))

    for name in MAPS:
        whole = getattr(maps, name)
        torch.testing.assert_close(whole[:, :, 3::8, 5::8], wanted[name], atol=1e-4, rtol=0)
        torch.testing.assert_close(whole.mean((2, 3)), wanted[f"{name}_mean"], atol=1e-4, rtol=0)
    torch.testing.assert_close(maps.tokens[:, ::6], wanted["tokens"], atol=1e-4, rtol=0)


def test_a_picture_has_the_same_maps_alone_and_among_others(small: CellVit256) -> None:
    pictures = torch.from_numpy(drawn_pictures(3, 32, 48))

    together, alone = small(pictures), small(pictures[1:2])

    for name in (*MAPS, "tokens"):
        torch.testing.assert_close(getattr(together, name)[1:2], getattr(alone, name), atol=1e-5, rtol=0)
    assert not torch.allclose(together.kind[1], together.kind[2])


def test_white_pictures_go_all_the_way(small: CellVit256) -> None:
    maps = small(torch.full((1, 64, 64, 3), 255, dtype=torch.uint8))

    [classes] = maps.decide()
    cells = find_cells(classes.nucleus, classes.kind, classes.distance)
    vectors = cell_tokens(maps.tokens[0], cells.instances, cells.numbers)

    assert vectors.shape == (len(cells.numbers), 24)
    assert torch.isfinite(vectors).all()


def maps_of(nucleus: Tensor, kind: Tensor) -> CellMaps:
    return CellMaps(nucleus, torch.zeros_like(nucleus), kind, torch.zeros(len(nucleus), 8, 1, 1))


def test_pixels_are_of_the_likeliest_class_and_of_equal_ones_of_the_lower() -> None:
    nucleus = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]).view(1, 2, 1, 3)
    kind = torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 0.0, 5.0]]).view(1, 3, 1, 3)

    [classes] = maps_of(nucleus, kind).decide()

    assert classes.nucleus.tolist() == [[1, 0, 0]]
    assert classes.kind.tolist() == [[1, 0, 2]]
    assert classes.distance.shape == (1, 3, 2)
    assert classes.distance.dtype == np.float32


def test_near_ties_of_half_precision_are_background_as_published() -> None:
    logits = torch.tensor([0.0, 2**-13]).view(1, 2, 1, 1)

    [whole] = maps_of(logits, logits).decide()
    [half] = maps_of(logits.half(), logits.half()).decide()

    assert (whole.nucleus.item(), whole.kind.item()) == (1, 1)
    assert (half.nucleus.item(), half.kind.item()) == (0, 0)


@pytest.mark.parametrize("map_name", MAPS)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_maps_that_are_not_finite_are_refused(map_name: str, wrong: float) -> None:
    maps = maps_of(torch.zeros(2, 2, 4, 4), torch.zeros(2, 3, 4, 4))
    getattr(maps, map_name)[1, 1, 2, 3] = wrong

    with pytest.raises(EncoderOverflowed, match="not finite"):
        maps.decide()


def test_the_checkpoints_own_normalisation_is_used(small: CellVit256) -> None:
    other = loaded(dict(small.state_dict()), mean=(0.7, 0.6, 0.5), std=(0.5, 1.0, 0.5), **SMALL)
    ours, same = (torch.tensor(rgb, dtype=torch.uint8).expand(1, 16, 32, 3) for rgb in ((153, 100, 90), (102, 101, 90)))

    torch.testing.assert_close(other(ours).kind, small(same).kind, atol=1e-5, rtol=0)
    assert not torch.allclose(other(ours).kind, small(ours).kind, atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 3, 16, 16), (1, 24, 16, 3), (1, 16, 40, 3), (0, 16, 16, 3)])
def test_other_pictures_are_refused(small: CellVit256, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="CellViT takes"):
        small(torch.zeros(shape, dtype=torch.uint8))


def test_pictures_of_floats_are_refused(small: CellVit256) -> None:
    with pytest.raises(ValueError, match="uint8"):
        small(torch.zeros(1, 16, 16, 3))


def test_a_depth_without_quarters_is_refused() -> None:
    with pytest.raises(ValueError, match="quarter"), torch.device("meta"):
        CellVit256(depth=6)
