from pathlib import Path

import numpy as np
import pytest
import torch
from small_tile_encoder import CPU, SIDE_PX, seeded_model, small_encoder, small_weights, spec_of
from torch import nn

from encoders.tile_encoder.encode import TileEncoder
from encoders.tile_encoder.float8_gate import LEAST_COSINE, cosines, require_float8_device, switch_to_float8
from encoders.tile_encoder.float8_linear import Float8Linear, multiply_in_float8
from encoders.tile_encoder.model import TileModel, build_tile_encoder
from encoders.tile_encoder.tissue_like_tiles import tissue_like_tiles
from model_store.contracts.tile_encoder import TimmTileEncoder
from model_store.errors import ModelError

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_product_differs_by_the_rounding_of_its_factors(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(256, 64).to(dtype)
    tokens = torch.randn(3, 5, 256).to(dtype)
    # One row a thousand times the others, as outliers are: its neighbours keep their precision.
    tokens[1, 2] *= 1000

    expected = linear(tokens).float()
    product = Float8Linear(linear)(tokens)

    assert product.dtype == dtype
    assert product.shape == (3, 5, 64)
    error = (product.float() - expected).norm(dim=-1) / expected.norm(dim=-1)
    # Both factors are rounded to 4 significant bits: 2^-4 / sqrt(3) at most, each, and not all in one direction.
    assert 0.005 < error.min() <= error.max() < 0.06


def test_rows_of_zeros_stay_zeros() -> None:
    linear = nn.Linear(32, 16, bias=False)

    assert torch.equal(Float8Linear(linear)(torch.zeros(1, 2, 32)), torch.zeros(1, 2, 16))


def test_the_compiler_sees_through_it() -> None:
    torch.manual_seed(0)
    layer = Float8Linear(nn.Linear(32, 16))
    tokens = torch.randn(2, 3, 32)

    # Traced only: what is made of it depends on the device.
    traced = torch.compile(layer, fullgraph=True, dynamic=False, backend="eager")

    assert torch.equal(traced(tokens), layer(tokens))


def test_only_the_inner_blocks_multiply_in_8_bits_and_not_their_second_matrix() -> None:
    model = seeded_model(spec_of())

    multiply_in_float8(model)

    replaced = {name for name, layer in model.named_modules() if isinstance(layer, Float8Linear)}
    assert replaced == {f"blocks.{block}.{name}" for block in (1, 2) for name in ("attn.qkv", "attn.proj", "mlp.fc1")}


@pytest.mark.parametrize(
    "changes",
    [
        {"timm_args": spec_of().timm_args | {"depth": 2}},
        {"timm_model": "convnext_atto", "timm_args": {"num_classes": 0}},
    ],
)
def test_a_model_without_inner_blocks_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ModelError, match='set matmul = "dtype"'):
        multiply_in_float8(seeded_model(spec_of(**changes)))


def test_on_a_cpu_the_manifest_is_refused_in_one_sentence(tmp_path: Path) -> None:
    spec = spec_of(matmul="float8")

    with pytest.raises(ModelError, match=r"needs an NVIDIA GPU of compute capability 8\.9"):
        TileEncoder(spec, small_weights(tmp_path, spec), CPU)


@pytest.mark.parametrize(("capability", "fits"), [((8, 0), False), ((8, 6), False), ((8, 9), True), ((9, 0), True)])
def test_the_device_decides(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], fits: bool) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)

    if fits:
        require_float8_device(torch.device("cuda"))
    else:
        with pytest.raises(ModelError):
            require_float8_device(torch.device("cuda"))


class Gated:
    """A model on the CPU, whose torch multiplies in 8 bits too, if slowly."""

    def __init__(self, folder: Path, spec: TimmTileEncoder) -> None:
        self.model: TileModel = build_tile_encoder(spec, small_weights(folder, spec), CPU)

    @torch.inference_mode()
    def encode(self, pixels: np.ndarray) -> np.ndarray:
        return self.model(torch.from_numpy(pixels)).numpy()


def test_a_model_that_stays_close_passes_the_gate(tmp_path: Path) -> None:
    gated = Gated(tmp_path, spec_of(dtype="bfloat16"))
    tiles = tissue_like_tiles(5, SIDE_PX, seed=1)
    expected = gated.encode(tiles)

    least = switch_to_float8(gated.model.model, gated.encode, SIDE_PX, LEAST_COSINE)

    assert LEAST_COSINE <= least < 1
    assert any(isinstance(layer, Float8Linear) for layer in gated.model.modules())
    assert cosines(gated.encode(tiles), expected).min() > LEAST_COSINE
    assert not np.array_equal(gated.encode(tiles), expected), "it does compute something else"


def test_a_model_that_8_bits_change_does_not_pass(tmp_path: Path) -> None:
    gated = Gated(tmp_path, spec_of(timm_args=spec_of().timm_args | {"init_values": 10.0}))
    common = gated.encode(tissue_like_tiles(64, SIDE_PX)).mean(0)

    def encode(pixels: np.ndarray) -> np.ndarray:
        # Random weights give all tiles much the same features, beside which errors are small; this is the rest.
        return gated.encode(pixels) - common

    with pytest.raises(ModelError, match=r"differ too much \(cosine 0\.\d+ to 16 bits, at least 0\.999"):
        switch_to_float8(gated.model.model, encode, SIDE_PX, LEAST_COSINE)


def test_features_that_are_no_numbers_do_not_pass(tmp_path: Path) -> None:
    gated = Gated(tmp_path, spec_of())

    def encode(pixels: np.ndarray) -> np.ndarray:
        return gated.encode(pixels) * np.float32(np.nan)

    with pytest.raises(ModelError, match="differ too much"):
        switch_to_float8(gated.model.model, encode, SIDE_PX, LEAST_COSINE)


def test_the_sample_is_seeded_and_has_colour_and_detail() -> None:
    tiles = tissue_like_tiles(3, 224)

    assert tiles.shape == (3, 224, 224, 3)
    assert np.array_equal(tiles, tissue_like_tiles(3, 224))
    assert not np.array_equal(tiles, tissue_like_tiles(3, 224, seed=1))
    red, green, _ = tiles.reshape(-1, 3).mean(0)
    assert red > green + 20, "eosin absorbs green"
    assert tiles.std() > 30


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_the_gate_is_part_of_loading(tmp_path: Path) -> None:
    spec = spec_of(dtype="bfloat16", matmul="float8")
    tiles = tissue_like_tiles(5, SIDE_PX, seed=1)

    encoder = TileEncoder(spec, small_weights(tmp_path, spec), torch.device("cuda"))
    encoder.warm_up()

    assert cosines(encoder.encode(tiles), small_encoder(tmp_path).encode(tiles)).min() > LEAST_COSINE
