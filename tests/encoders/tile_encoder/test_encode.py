from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from small_tile_encoder import seeded_model, small_encoder, small_weights, spec_of

from encoders.tile_encoder.encode import TileEncoder, centre_crop
from encoders.tile_encoder.torchvision_ops import timm
from model_store.errors import ModelError
from model_store.installed import InstalledModel

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder(demo_model: InstalledModel) -> TileEncoder:
    return TileEncoder(
        demo_model.manifest.first_input.tile_encoder,
        demo_model.file(demo_model.manifest.first_input.tile_encoder.weights),
        CPU,
    )


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 256, 256, 3), dtype=np.uint8)


def test_features_equal_the_fields_own_transform_and_model(
    demo_model: InstalledModel, encoder: TileEncoder, tiles: np.ndarray
) -> None:
    from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

    spec = demo_model.manifest.first_input.tile_encoder
    transform = Compose(
        [Resize(256, interpolation=3), CenterCrop(224), ToTensor(), Normalize(mean=spec.mean, std=spec.std)]
    )
    model = timm.create_model(spec.timm_model, pretrained=False, **spec.timm_args).eval()
    model.load_state_dict(load_file(demo_model.file(demo_model.manifest.first_input.tile_encoder.weights)))
    with torch.inference_mode():
        expected = model(torch.stack([transform(Image.fromarray(tile)) for tile in tiles])).numpy()

    features = encoder.encode(tiles)

    assert features.shape == (5, spec.feature_dim)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=2e-5)


def test_a_tile_gives_the_same_features_whatever_comes_with_it(encoder: TileEncoder, tiles: np.ndarray) -> None:
    many = np.concatenate([tiles] * 8)  # 40 tiles: more than a batch of 32

    features = encoder.encode(many)

    assert features.shape[0] == 40
    np.testing.assert_allclose(features[35:], encoder.encode(tiles), atol=1e-5)
    np.testing.assert_allclose(features[2], encoder.encode(tiles[2:3])[0], atol=1e-5)


def test_the_crop_is_the_middle(tiles: np.ndarray) -> None:
    assert np.array_equal(centre_crop(tiles, 224), tiles[:, 16:240, 16:240])
    assert np.array_equal(centre_crop(tiles, 256), tiles)


def test_tiles_smaller_than_the_input_are_refused(tiles: np.ndarray) -> None:
    with pytest.raises(ModelError, match="256 px"):
        centre_crop(tiles[:, :100, :100], 256)


def test_half_precision_stays_close(demo_model: InstalledModel, encoder: TileEncoder, tiles: np.ndarray) -> None:
    spec = demo_model.manifest.first_input.tile_encoder.model_copy(update={"dtype": "bfloat16"})

    features = TileEncoder(spec, demo_model.file(demo_model.manifest.first_input.tile_encoder.weights), CPU).encode(
        tiles
    )

    expected = encoder.encode(tiles)
    cosine = (features * expected).sum(1) / np.linalg.norm(features, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.999


@pytest.mark.parametrize(("dtype", "warned"), [("float16", True), ("bfloat16", False), ("float32", False)])
def test_float16_on_a_cpu_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, dtype: str, warned: bool
) -> None:
    small_encoder(tmp_path, dtype=dtype).warm_up()

    assert ("float16 on a CPU" in caplog.text) == warned


def test_the_published_shortcuts_change_nothing(tmp_path: Path) -> None:
    spec = spec_of()
    tiles = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    with torch.inference_mode():
        normalised = (torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255 - mean) / std
        expected = seeded_model(spec)(normalised).numpy()

    features = small_encoder(tmp_path).encode(tiles)

    assert np.abs(features - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("compiles", [False, True])
def test_a_gpu_gives_the_same_features(tmp_path: Path, compiles: bool) -> None:
    spec = spec_of()
    encoder = TileEncoder(spec, small_weights(tmp_path, spec), torch.device("cuda"), compiles=compiles)
    encoder.warm_up()
    tiles = np.random.default_rng(0).integers(0, 256, (21, 32, 32, 3), dtype=np.uint8)

    assert encoder.compiled == compiles
    np.testing.assert_allclose(encoder.encode(tiles), small_encoder(tmp_path).encode(tiles), atol=1e-3)


def test_warming_up_checks_the_promised_width(demo_model: InstalledModel) -> None:
    spec = demo_model.manifest.first_input.tile_encoder.model_copy(update={"feature_dim": 384})

    with pytest.raises(ModelError, match="192 features, its manifest says 384"):
        TileEncoder(spec, demo_model.file(demo_model.manifest.first_input.tile_encoder.weights), CPU).warm_up()


@pytest.mark.parametrize("fault", ["missing", "extra", "shape"])
def test_weights_that_do_not_fit_are_refused_by_name(demo_model: InstalledModel, tmp_path: Path, fault: str) -> None:
    tensors = load_file(demo_model.file(demo_model.manifest.first_input.tile_encoder.weights))
    if fault == "missing":
        del tensors["norm.weight"]
    elif fault == "extra":
        tensors["norm.more"] = torch.zeros(1)
    else:
        tensors["norm.weight"] = torch.zeros(3)
    save_file(tensors, tmp_path / "w.safetensors")

    with pytest.raises(ModelError, match=r"norm\."):
        TileEncoder(demo_model.manifest.first_input.tile_encoder, tmp_path / "w.safetensors", CPU)


@pytest.mark.parametrize("data", [None, b"", b"\x80\x04K\x01."])
def test_weights_that_cannot_be_read_are_a_model_error_without_a_path(
    demo_model: InstalledModel, tmp_path: Path, data: bytes | None
) -> None:
    path = tmp_path / "w.safetensors"
    if data is not None:
        path.write_bytes(data)

    with pytest.raises(ModelError, match="install the model again") as caught:
        TileEncoder(demo_model.manifest.first_input.tile_encoder, path, CPU)

    assert str(tmp_path) not in caught.value.detail


@pytest.mark.parametrize("update", [{"timm_model": "no_such_model"}, {"timm_args": {"no_such_argument": 1}}])
def test_a_model_that_timm_does_not_know_is_a_model_error(
    demo_model: InstalledModel, update: dict[str, object]
) -> None:
    spec = demo_model.manifest.first_input.tile_encoder.model_copy(update=update)

    with pytest.raises(ModelError, match="timm cannot build"):
        TileEncoder(spec, demo_model.file(demo_model.manifest.first_input.tile_encoder.weights), CPU)


def test_an_overflow_is_reported_not_passed_on(demo_model: InstalledModel, tmp_path: Path, tiles: np.ndarray) -> None:
    tensors = load_file(demo_model.file(demo_model.manifest.first_input.tile_encoder.weights))
    tensors["norm.bias"] = torch.full_like(tensors["norm.bias"], torch.inf)
    save_file(tensors, tmp_path / "w.safetensors")

    with pytest.raises(ModelError, match="overflowed in float32"):
        TileEncoder(demo_model.manifest.first_input.tile_encoder, tmp_path / "w.safetensors", CPU).encode(tiles)
