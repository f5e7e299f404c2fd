"""The networks' edges: other sizes, one of each, nothing at all, wrong shapes. Networks are small, weights random."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.hierarchical import cell_fusion
from encoders.hierarchical.cell_fusion import CellFusion
from encoders.hierarchical.conch import ConchImage
from encoders.hierarchical.projector import HierarchicalProjector
from encoders.hierarchical.vit4k import Vit4k
from encoders.hierarchical.vit256 import Vit256


def seeded(module: nn.Module) -> Any:
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return module.eval().requires_grad_(False)


def pictures(count: int, height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8)


def test_a_picture_may_have_any_sides_of_whole_patches() -> None:
    model = seeded(Vit256(embed_dim=24, depth=2, num_heads=2))
    for height, width in ((256, 256), (224, 224), (16, 48)):
        assert model(pictures(2, height, width)).shape == (2, 24)


def test_the_grid_that_positions_were_learnt_for_uses_them_as_they_are() -> None:
    model = seeded(Vit256(embed_dim=24, depth=1, num_heads=2))
    pixels = pictures(1, 224, 224)
    patches = model.patch_embed(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1)
    tokens = torch.cat([model.cls_token, patches], dim=1) + model.pos_embed
    torch.testing.assert_close(model(pixels), model.norm(model.blocks[0](tokens))[:, 0])


def test_a_region_of_a_single_picture_and_no_region() -> None:
    model = seeded(Vit4k(in_dim=12, embed_dim=24, depth=2, num_heads=2))
    assert model(torch.randn(3, 1, 12)).shape == (3, 24)
    assert model(torch.randn(0, 16, 12)).shape == (0, 24)


def test_a_region_knows_where_its_pictures_lie() -> None:
    model = seeded(Vit4k(in_dim=12, embed_dim=24, depth=2, num_heads=2))
    grid = torch.randn(1, 4, 4, 12)
    across, down = model(grid.flatten(1, 2)), model(grid.transpose(1, 2).flatten(1, 2))
    assert not torch.allclose(across, down, atol=1e-3)


def test_vectors_of_pictures_have_length_one_whatever_the_pixels() -> None:
    model = seeded(ConchImage(width=24, depth=1, num_heads=2))
    pixels = torch.cat([pictures(1, 64, 64), torch.zeros(1, 64, 64, 3, dtype=torch.uint8)])
    torch.testing.assert_close(model(pixels).norm(dim=-1), torch.ones(2))


@pytest.mark.parametrize("make", [lambda: Vit256(depth=1), lambda: ConchImage(depth=1)], ids=["vit256", "conch"])
@pytest.mark.parametrize("pixels", [torch.zeros(1, 256, 250, 3, dtype=torch.uint8), torch.zeros(1, 3, 256, 256)])
def test_what_are_no_pictures_is_refused(make: Callable[[], nn.Module], pixels: Tensor) -> None:
    with pytest.raises(ValueError, match=r"[Pp]icture"):
        make()(pixels)


@pytest.mark.parametrize("shape", [(1, 15, 12), (1, 0, 12), (1, 16, 13), (16, 12)])
def test_what_is_no_square_region_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="square"):
        Vit4k(in_dim=12, embed_dim=24, depth=1, num_heads=2)(torch.zeros(shape))


def test_patches_are_fused_alike_alone_and_together(monkeypatch: pytest.MonkeyPatch) -> None:
    model = seeded(CellFusion(embed_dim=24, depth=2, num_heads=2))
    patches = [torch.randn(count, 24) for count in (3, 0, 7, 1, 7, 0, 40)]
    together = model(patches)
    assert together.shape == (7, 24)
    assert not together[[1, 5]].any()
    torch.testing.assert_close(together, torch.cat([model([patch]) for patch in patches]))
    monkeypatch.setattr(cell_fusion, "PASS_TOKENS", 16)
    torch.testing.assert_close(model(patches), together)


def test_the_order_of_cells_does_not_matter() -> None:
    model = seeded(CellFusion(embed_dim=24, depth=2, num_heads=2))
    cells = torch.randn(9, 24)
    torch.testing.assert_close(model([cells]), model([cells.flip(0)]))


def test_no_patches_and_no_cells_anywhere_are_no_error() -> None:
    model = seeded(CellFusion(embed_dim=24, depth=1, num_heads=2))
    assert model([]).shape == (0, 24)
    assert torch.equal(model([torch.zeros(0, 24)] * 3), torch.zeros(3, 24))


def test_cells_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="24"):
        CellFusion(embed_dim=24, depth=1, num_heads=2)([torch.zeros(2, 25)])


def levels(regions: int, patches: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    region = torch.randn(regions, 192)
    return region.mean(0), region, torch.randn(regions, patches, 512), torch.randn(regions, patches, 384)


def test_the_mean_before_the_last_layer_is_the_mean_after_it() -> None:
    model = seeded(HierarchicalProjector(llm_dim=16, hidden_dim=8, query_tokens=4))
    slide, region, patch, cell = levels(3, 5)
    cell[1, 2:] = 0  # patches without cells: they have their part in the mean
    tokens = [model.region_proj(region), model.patch_proj(patch).mean(1), model.cell_proj(cell).mean(1)]
    wanted = torch.cat([model.wsi_proj(slide).expand(3, -1), *tokens], dim=-1)
    fused = functional.layer_norm(
        model.fusion.fuse(wanted) + tokens[0], (16,), model.fusion.out_norm.weight, model.fusion.out_norm.bias
    )
    torch.testing.assert_close(model.fuse(slide, region, patch, cell), fused)


@pytest.mark.parametrize(("regions", "patches"), [(1, 1), (1, 16), (563, 2)])
def test_any_number_of_regions_makes_the_same_number_of_rows(regions: int, patches: int) -> None:
    model = seeded(HierarchicalProjector(llm_dim=16, hidden_dim=8, query_tokens=4))
    rows = model(*levels(regions, patches))
    assert rows.shape == (4, 16)
    assert rows.isfinite().all()


def test_rows_do_not_depend_on_the_order_of_regions() -> None:
    model = seeded(HierarchicalProjector(llm_dim=16, hidden_dim=8, query_tokens=4))
    slide, region, patch, cell = levels(6, 2)
    back = model(slide, region.flip(0), patch.flip(0), cell.flip(0))
    torch.testing.assert_close(back, model(slide, region, patch, cell))


def test_features_in_half_precision_are_projected_in_single() -> None:
    model = seeded(HierarchicalProjector(llm_dim=16, hidden_dim=8, query_tokens=4))
    given = tuple(level.half() for level in levels(2, 3))
    rows = model(*given)
    assert rows.dtype == torch.float32
    assert torch.equal(rows, model(*(level.float() for level in given)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"slide": (193,)},
        {"slide": (1, 192)},
        {"region": (0, 192)},
        {"patch": (2, 0, 512)},
        {"cell": (2, 4, 384)},
        {"cell": (3, 3, 384)},
        {"patch": (2, 512)},
    ],
)
def test_levels_that_do_not_fit_together_are_refused(wrong: dict[str, tuple[int, ...]]) -> None:
    shapes = {"slide": (192,), "region": (2, 192), "patch": (2, 3, 512), "cell": (2, 3, 384)} | wrong
    with pytest.raises(ValueError, match="levels"):
        HierarchicalProjector(llm_dim=16, hidden_dim=8)(**{name: torch.zeros(shape) for name, shape in shapes.items()})
