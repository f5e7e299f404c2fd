"""Too little memory for a batch: smaller passes with the same features, no attempt of any slide spent."""

import logging
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_tile_encoder import BATCH_TILES, SIDE_PX, small_encoder, small_weights, spec_of
from torch import Tensor, nn

from encoders.device_errors import empty_cache
from encoders.errors import DeviceFull
from encoders.tile_encoder import encode as encode_module
from encoders.tile_encoder.batcher import TileBatcher
from encoders.tile_encoder.encode import TileEncoder
from encoders.tile_encoder.tissue_like_tiles import tissue_like_tiles

TILES = tissue_like_tiles(BATCH_TILES + 3, SIDE_PX)


class Device(nn.Module):
    """Stands before a model: has memory for so many tiles at once and notes what it was given."""

    def __init__(self, encoder: TileEncoder, tiles: int) -> None:
        super().__init__()
        self.inner = encoder._model
        self.tiles = tiles
        self.given: list[int] = []
        self.held: list[weakref.ref[Tensor]] = []

    def forward(self, pixels: Tensor) -> Tensor:
        self.given.append(len(pixels))
        activations = torch.zeros(len(pixels))
        self.held.append(weakref.ref(activations))
        if len(pixels) > self.tiles:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        features: Tensor = self.inner(pixels)
        return features


ONE_BLOCK = spec_of().timm_args | {"depth": 1}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.float32]:
    """The features of TILES where memory does for all."""
    return small_encoder(tmp_path_factory.mktemp("plain"), timm_args=ONE_BLOCK).encode(TILES)


def with_memory_for(tiles: int, folder: Path, batch_tiles: int = BATCH_TILES) -> tuple[TileEncoder, Device]:
    encoder = small_encoder(folder, timm_args=ONE_BLOCK, batch_tiles=batch_tiles)
    device = Device(encoder, tiles)
    encoder._model = device
    return encoder, device


@pytest.mark.parametrize(
    ("batch_tiles", "memory_tiles", "given"),
    [
        (8, 2, [8, 4, 2, 2, 2, 2]),
        (8, 1, [8, 4, 2, *[1] * 8]),
        (7, 4, [7, 4, 4]),  # the second pass overlaps the first: one shape for all
        (5, 2, [5, 3, 2, 2, 2]),
    ],
)
def test_the_batch_is_halved_until_it_fits_and_gives_the_same_features(
    tmp_path: Path, expected: NDArray[np.float32], batch_tiles: int, memory_tiles: int, given: list[int]
) -> None:
    encoder, device = with_memory_for(memory_tiles, tmp_path, batch_tiles)

    features = encoder.encode(TILES[:batch_tiles])

    np.testing.assert_allclose(features, expected[:batch_tiles], atol=1e-5)
    assert device.given == given


def test_what_fits_is_remembered_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder, device = with_memory_for(4, tmp_path)
    with caplog.at_level(logging.WARNING):
        encoder.encode(TILES[:1])
    device.given.clear()

    encoder.encode(TILES[:BATCH_TILES])

    assert device.given == [4, 4]
    assert (encoder.pass_tiles, encoder.refused_passes) == (4, 1)
    assert "not do for 8 tiles at once; from now on it is given 4" in caplog.text


def test_the_cache_is_emptied_when_nothing_of_the_failed_pass_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, device = with_memory_for(2, tmp_path)
    held: list[bool] = []

    def emptied(where: torch.device) -> None:
        empty_cache(where)
        held.append(any(it() is not None for it in device.held))

    monkeypatch.setattr(encode_module, "empty_cache", emptied)

    encoder.encode(TILES[:1])

    assert held == [False, False]


def test_slides_do_not_notice(tmp_path: Path, expected: NDArray[np.float32]) -> None:
    encoder, _ = with_memory_for(2, tmp_path)
    batcher = TileBatcher(encoder)

    with batcher.slide() as slide:
        slide.put(TILES)
        features = np.concatenate(list(slide.finish()))
    batcher.close()

    np.testing.assert_allclose(features, expected, atol=1e-5)
    assert (batcher.pass_tiles, batcher.refused_passes) == (2, 2)


def test_a_device_that_has_no_memory_for_one_tile_says_what_to_set(tmp_path: Path) -> None:
    encoder, device = with_memory_for(0, tmp_path)

    with pytest.raises(DeviceFull, match="EYEPIECE_DEVICE"):
        encoder.warm_up()

    assert device.given == [8, 4, 2, 1]


def test_warming_up_finds_what_fits(tmp_path: Path, expected: NDArray[np.float32]) -> None:
    encoder, _ = with_memory_for(3, tmp_path)

    sample = encoder.warm_up(TILES[:2])

    assert encoder.pass_tiles == 2
    np.testing.assert_allclose(sample, expected[:2], atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_that_is_short_of_memory_is_given_fewer_tiles(tmp_path: Path) -> None:
    spec = spec_of(timm_args=ONE_BLOCK, batch_tiles=65536)  # 0.2 GB of pixels, 0.8 GB as float32
    encoder = TileEncoder(spec, small_weights(tmp_path, spec), torch.device("cuda"), compiles=False)
    expected = encoder.encode(TILES)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 6e8) / total)
    try:
        features = encoder.encode(TILES)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)

    np.testing.assert_allclose(features, expected, atol=1e-3)
    assert encoder.pass_tiles < spec.batch_tiles
