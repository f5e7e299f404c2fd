from typing import Any

import pytest
import torch
from small_tile_encoder import spec_of
from torch import Tensor, nn

from encoders.tile_encoder.fold_normalisation import CentredPixels, NormalisedPixels, fold_normalisation
from encoders.tile_encoder.tissue_like_tiles import tissue_like_tiles
from encoders.tile_encoder.torchvision_ops import timm
from model_store.contracts.tile_encoder import TimmTileEncoder

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# The published statistics that lie farthest from the middle (H-optimus-0).
STAINED = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
SIDE = 64


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.from_numpy(tissue_like_tiles(4, SIDE))


def seeded(name: str, **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0, **arguments).eval()


def normalised(pixels: Tensor, spec: TimmTileEncoder) -> Tensor:
    """In float64, as torchvision would."""
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    return (pixels.permute(0, 3, 1, 2).double() / 255 - mean) / std


@torch.inference_mode()
def both(model: nn.Module, spec: TimmTileEncoder, pixels: Tensor) -> tuple[Tensor, Tensor, nn.Module]:
    """What the model gives behind the published transforms, what behind ours, and ours."""
    expected = model(normalised(pixels, spec).float())
    front = fold_normalisation(model, spec, torch.float32)
    return expected, model(front(pixels)), front


@pytest.mark.parametrize("statistics", [IMAGENET, STAINED])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("vit_tiny_patch16_224", {"depth": 2}),
        ("vit_tiny_patch16_224", {"depth": 2, "pre_norm": True}),  # a patch embedding without a bias
        ("vit_tiny_patch16_224", {"depth": 2, "dynamic_img_size": True}),
    ],
)
def test_a_folded_model_gives_the_same_features(
    pixels: Tensor, name: str, arguments: dict[str, Any], statistics: Any
) -> None:
    spec = spec_of(mean=statistics[0], std=statistics[1])

    expected, features, front = both(seeded(name, img_size=SIDE, **arguments), spec, pixels)

    assert isinstance(front, CentredPixels)
    assert (features - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("convnext_atto", {}),
        ("vit_tiny_patch16_224", {"img_size": SIDE, "depth": 1, "dynamic_img_size": True, "dynamic_img_pad": True}),
        ("eva02_tiny_patch14_224", {"img_size": 56}),
    ],
)
def test_what_cannot_be_folded_is_normalised_before_the_model(
    pixels: Tensor, name: str, arguments: dict[str, Any]
) -> None:
    side = arguments.get("img_size", SIDE)

    expected, features, front = both(seeded(name, **arguments), spec_of(), pixels[:, :side, :side])

    assert isinstance(front, NormalisedPixels)
    assert (features - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_pixel_value_is_exact_in_16_bits(dtype: torch.dtype) -> None:
    values = torch.arange(256, dtype=torch.uint8)

    centred = CentredPixels(dtype)(values.view(1, 16, 16, 1).expand(-1, -1, -1, 3))

    assert centred.dtype == dtype
    assert torch.equal(centred[0, 0].flatten().double() * 64 + 128, values.double())


@pytest.mark.parametrize("statistics", [IMAGENET, STAINED])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_to_16_bits_costs_no_more_than_the_published_rounding(
    pixels: Tensor, dtype: torch.dtype, statistics: Any
) -> None:
    spec = spec_of(mean=statistics[0], std=statistics[1])
    model = seeded("vit_tiny_patch16_224", img_size=SIDE, depth=1)
    embed: Any = model.patch_embed
    exact = embed.double()(normalised(pixels, spec))
    # The products are exact and the sums too, so that only what is stored is rounded.
    published = (
        seeded("vit_tiny_patch16_224", img_size=SIDE, depth=1)
        .patch_embed.to(dtype)
        .double()(normalised(pixels, spec).to(dtype).double())
    )
    front = fold_normalisation(model, spec, dtype)
    ours = embed.to(dtype).double()(front(pixels).double())

    error, published_error = ((values - exact).square().mean().sqrt() for values in (ours, published))
    assert 0 < error < 2 * published_error
