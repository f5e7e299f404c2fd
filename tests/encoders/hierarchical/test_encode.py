"""Regions to rows: what the networks are given, what comes of it, and the edges. Networks are small, weights random."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from encoders.errors import EncoderOverflowed, NoTissue
from encoders.hierarchical.cell_fusion import CellFusion
from encoders.hierarchical.cellvit import CellMaps
from encoders.hierarchical.encode import HierarchicalEncoder, HierarchicalFeatures
from encoders.hierarchical.projector import HierarchicalProjector
from encoders.hierarchical.vit4k import Vit4k
from encoders.hierarchical.vit256 import Vit256

Pixels = NDArray[np.uint8]


class CountedConch(nn.Module):
    """In CONCH's place: a unit vector made of a picture's corner. Notes how many pictures it is given at once."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(3 * 64, 512)
        self.passes: list[int] = []

    def forward(self, pixels: Tensor) -> Tensor:
        self.passes.append(len(pixels))
        corners = pixels[:, -8:, -8:].flatten(1).float() / 255
        return nn.functional.normalize(self.proj(corners), dim=-1)


class BlackIsNucleus(nn.Module):
    """In CellViT's place: black pixels are one nucleus of kind 1, and tokens are what lies under it."""

    def forward(self, pixels: Tensor) -> CellMaps:
        ink = (pixels[..., 0] == 0).float()
        places = torch.stack(torch.meshgrid(*(torch.arange(side).float() for side in ink.shape[1:]), indexing="xy"))
        middle = (ink[:, None] * places).sum((2, 3)) / ink.sum((1, 2)).clamp(min=1)[:, None]
        distance = ink[:, None] * (places - middle[:, :, None, None]) / 12
        nucleus = torch.stack([1 - ink, ink], dim=1)
        kind = torch.cat([nucleus, torch.zeros_like(ink)[:, None].expand(-1, 4, -1, -1)], dim=1)
        tokens = nn.functional.avg_pool2d(ink[:, None], 16).expand(-1, 384, -1, -1)
        return CellMaps(nucleus=nucleus, distance=distance, kind=kind, tokens=tokens)


def encoder(**options: Any) -> tuple[HierarchicalEncoder, CountedConch]:
    conch = CountedConch()
    networks = [
        Vit256(embed_dim=24, depth=1, num_heads=2),
        Vit4k(in_dim=24, depth=1),
        conch,
        CellFusion(depth=1),
        HierarchicalProjector(llm_dim=16, hidden_dim=8, query_tokens=4),
    ]
    generator = torch.Generator().manual_seed(5)
    for network in networks:
        for parameter in network.eval().requires_grad_(False).parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    vit256, vit4k, _, fusion, projector = networks
    made: Any = (vit256, vit4k, conch, BlackIsNucleus(), fusion, projector)
    return HierarchicalEncoder(*made, **options), conch


def region(seed: int, grid: int = 2, *, cells: bool = True) -> Pixels:
    """Each picture of another shade, with noise; the last one is white, the first has a nucleus."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(60, 90, (grid * 256, grid * 256, 3), dtype=np.uint8)
    for index in range(grid * grid):
        row, column = divmod(index, grid)
        picture[row * 256 : row * 256 + 256, column * 256 : column * 256 + 256] += np.uint8(150 * index // grid**2)
    if cells:
        picture[40:60, 100:124] = 0
    if grid > 1:
        picture[-256:, -256:] = 255
    return picture


def same(left: HierarchicalFeatures, right: HierarchicalFeatures) -> bool:
    return all(torch.equal(value, getattr(right, name)) for name, value in vars(left).items())


def test_levels_have_the_shapes_that_they_are_said_to_have() -> None:
    made, _ = encoder(dissimilar=3, keep=2)
    got = made.encode(iter([region(1), region(2), region(3)]))
    shapes = {name: tuple(value.shape) for name, value in vars(got).items()}
    assert shapes == {
        "slide": (192,),
        "region": (3, 192),
        "patch": (3, 2, 512),
        "patch_index": (3, 2),
        "cell": (3, 2, 384),
        "rows": (4, 16),
    }
    assert torch.equal(got.slide, got.region.mean(0))
    assert all(value.isfinite().all() for value in vars(got).values())


def test_an_index_counts_pictures_row_by_row_and_their_cells_stand_beside_them() -> None:
    made, _ = encoder()
    pixels = region(1)
    pixels[256 + 30 : 256 + 50, 10:30] = 0  # second row, first column
    got = made.encode_region(pixels, None)
    found = {int(index): cells for index, cells in zip(got.patch_index, got.cells, strict=True)}
    assert [len(found[index].numbers) for index in range(4)] == [1, 0, 1, 0]
    np.testing.assert_allclose(found[0].centroids, [[111.5, 49.5]])
    np.testing.assert_allclose(found[2].centroids, [[19.5, 39.5]])
    assert [bool(cell.any()) for cell in got.cell] == [index in (0, 2) for index in got.patch_index.tolist()]


def test_what_was_kept_of_regions_makes_the_same_slide() -> None:
    made, _ = encoder(keep=2)
    pixels = [region(seed) for seed in (1, 2, 3)]
    kept = [made.encode_region(pixels[0], None)]
    kept += [made.encode_region(one, kept[0].anchor) for one in pixels[1:]]
    assert same(made.join(kept), made.encode(pixels))


def test_the_first_region_decides_what_is_chosen_in_the_others() -> None:
    made, _ = encoder(keep=1)
    pixels = [region(1, 3), region(2, 3)]
    first = made.encode_region(pixels[0], None)
    assert not torch.equal(first.patch, made.encode(pixels[::-1]).patch[1:])
    assert torch.equal(first.anchor, first.patch[0])


def test_equal_pictures_are_computed_once() -> None:
    made, conch = encoder(pass_pictures=4)
    got = made.encode_region(np.full((1024, 1024, 3), 255, np.uint8), None)
    assert conch.passes == [1]
    assert got.patch_index.tolist() == list(range(16))
    assert torch.equal(got.patch, got.patch[:1].expand(16, -1))
    conch.passes.clear()
    made.encode_region(region(1, 3), None)
    assert conch.passes == [4, 4, 1]


def test_how_many_pictures_go_through_at_once_changes_nothing_but_rounding() -> None:
    pixels = [region(1)]
    one, all_at_once = encoder(pass_pictures=1, pass_cells=1)[0], encoder(pass_pictures=99, pass_cells=99)[0]
    torch.testing.assert_close(vars(one.encode(pixels)), vars(all_at_once.encode(pixels)))


def test_a_slide_without_any_cell_has_rows() -> None:
    made, _ = encoder()
    got = made.encode([region(1, cells=False), region(2, cells=False)])
    assert not got.cell.any()
    assert got.rows.isfinite().all()


@pytest.mark.parametrize("regions", [1, 2])
def test_regions_of_one_picture(regions: int) -> None:
    made, _ = encoder()
    got = made.encode([region(seed, 1) for seed in range(regions)])
    assert got.patch_index.tolist() == [[0]] * regions
    assert got.patch.shape == (regions, 1, 512)


def test_no_region_is_no_tissue() -> None:
    with pytest.raises(NoTissue):
        encoder()[0].encode([])


def test_regions_of_several_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="one size"):
        encoder()[0].encode([region(1, 1), region(2, 2)])


@pytest.mark.parametrize("shape", [(256, 512, 3), (300, 300, 3), (256, 256, 4), (0, 0, 3), (256, 256)])
def test_what_is_no_region_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="region"):
        encoder()[0].encode([np.zeros(shape, np.uint8)])


def test_numbers_that_are_not_finite_are_never_compared() -> None:
    made, conch = encoder()
    conch.proj.weight.data.fill_(torch.inf)
    with pytest.raises(EncoderOverflowed):
        made.encode([region(1)])
