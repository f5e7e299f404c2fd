import weakref
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from encoders.device_errors import empty_cache
from encoders.errors import DeviceOutOfMemory, SlideTooLarge
from encoders.slide_encoder import encode as encode_module
from encoders.slide_encoder import longnet
from encoders.slide_encoder.encode import SlideEncoder, empty_slide_encoder
from encoders.slide_encoder.longnet import LongNetViT
from encoders.slide_encoder.outputs import OUTPUTS, SlideStates
from encoders.slide_encoder.positions import grid_index
from encoders.types import TileFeatures, TilePlan
from model_store.contracts.slide_stage import SlideOutput
from model_store.installed import InstalledModel

CPU = torch.device("cpu")


def encoder_of(model: InstalledModel, **changes: Any) -> SlideEncoder:
    spec = model.manifest.slide_stage.model_copy(update=changes)
    return SlideEncoder(spec, model.file(model.manifest.slide_stage.weights), CPU)


@pytest.fixture
def tile_features(plan: TilePlan) -> TileFeatures:
    """70 tiles of 512 level-0 pixels in raster order."""
    rows, columns = np.divmod(np.arange(70), 10)
    coords = np.stack([columns, rows], axis=1).astype(np.int64) * 512
    values = np.random.default_rng(0).standard_normal((70, 192)).astype(np.float32)
    return TileFeatures(replace(plan, width=5_120, height=3_584, coords=coords), values)


@torch.no_grad()
def run_longnet(model: InstalledModel, tile_features: TileFeatures) -> tuple[LongNetViT, SlideStates]:
    """All states of a slide whose tiles have 512 level-0 pixels."""
    spec = model.manifest.slide_stage
    longnet = LongNetViT(
        in_chans=spec.in_chans, embed_dim=spec.embed_dim, depth=spec.depth, num_heads=spec.num_heads
    ).eval()
    longnet.load_state_dict(load_file(model.file(model.manifest.slide_stage.weights)))
    longnet.requires_grad_(False)
    features, coords = torch.from_numpy(tile_features.features), torch.from_numpy(tile_features.plan.coords)
    return longnet, longnet(features, coords, keep="all", tile_size=512)


@pytest.mark.parametrize("source", ["encoder_out", "last_state"])
@pytest.mark.parametrize("suffix", ["_norm", ""])
def test_tokens_are_the_pooled_tiles_without_the_class_token(
    demo_model: InstalledModel, tile_features: TileFeatures, source: str, suffix: str
) -> None:
    longnet, states = run_longnet(demo_model, tile_features)
    tiles = (states.encoder_out if source == "encoder_out" else states.states[-1])[1:]
    pooled = functional.adaptive_avg_pool1d(tiles.T[None], 32)[0].T

    tokens = encoder_of(demo_model, output=f"wsi_llava_{source}{suffix}").encode(tile_features)

    expected = (longnet.norm(pooled) if suffix else pooled).numpy()
    assert (tokens.shape, tokens.dtype) == ((32, 96), np.float16)
    np.testing.assert_allclose(tokens.astype(np.float32), expected, atol=2e-3)


@pytest.mark.parametrize("output", ["cls", "all_layer_cls", "global_pool", "all_layer_global_pool"])
def test_a_vector_is_one_row_and_the_vectors_of_all_layers_are_as_many(
    demo_model: InstalledModel, tile_features: TileFeatures, output: str
) -> None:
    longnet, states = run_longnet(demo_model, tile_features)
    rows = 3 if output.startswith("all_layer") else 1

    tokens = encoder_of(demo_model, output=output, slide_tokens=rows).encode(tile_features)

    expected = OUTPUTS[output](states, longnet.norm).numpy().reshape(rows, 96)
    assert (tokens.shape, tokens.dtype) == ((rows, 96), np.float16)
    np.testing.assert_allclose(tokens.astype(np.float32), expected, atol=2e-3)


def test_every_output_can_be_named_in_a_manifest() -> None:
    assert set(get_args(SlideOutput)) == set(OUTPUTS)


def test_the_grid_step_of_a_slide_leaves_the_segment_lengths_as_published(demo_model: InstalledModel) -> None:
    for level in ("tile_px", "level0"):
        spec = demo_model.manifest.slide_stage.model_copy(update={"tile_stride_px_level": level})

        branches = empty_slide_encoder(spec).encoder.layers[0].self_attn.branches

        assert [branch.segment for branch in branches] == [1024, 5792, 32768, 185363, 1048576]


def test_fewer_tiles_than_tokens_still_fill_all_of_them(
    demo_model: InstalledModel, tile_features: TileFeatures
) -> None:
    few = TileFeatures(replace(tile_features.plan, coords=tile_features.plan.coords[:3]), tile_features.features[:3])

    assert encoder_of(demo_model).encode(few).shape == (32, 96)


def test_the_grid_step_is_the_tile_at_level_0_or_the_published_tile_px(
    demo_model: InstalledModel, tile_features: TileFeatures
) -> None:
    halved = replace(tile_features.plan, coords=tile_features.plan.coords // 2, tile_px_level0=256.0)
    native = TileFeatures(halved, tile_features.features)
    level0, published = encoder_of(demo_model), encoder_of(demo_model, tile_stride_px_level="tile_px")

    # The same cells at 40× and at 20× …
    assert np.array_equal(level0.encode(tile_features), level0.encode(native))
    # … while the published code counts in tiles of 256 px whatever the slide's resolution.
    assert np.array_equal(published.encode(native), level0.encode(native))
    assert not np.array_equal(published.encode(tile_features), level0.encode(tile_features))


def test_a_fractional_tile_keeps_one_cell_per_tile(demo_model: InstalledModel, tile_features: TileFeatures) -> None:
    # 512.6 px read, so the plan's grid has a stride of 513.
    cells = tile_features.plan.coords // 512
    fractional = replace(tile_features.plan, coords=cells * 513, tile_px_level0=512.6)
    encoder = encoder_of(demo_model)

    assert np.array_equal(
        encoder.encode(TileFeatures(fractional, tile_features.features)), encoder.encode(tile_features)
    )


def test_a_tile_outside_the_position_grid_is_refused(demo_model: InstalledModel, tile_features: TileFeatures) -> None:
    far = replace(tile_features.plan, coords=tile_features.plan.coords + 512 * 1_000)

    with pytest.raises(SlideTooLarge):
        encoder_of(demo_model).encode(TileFeatures(far, tile_features.features))


def test_the_grid_is_the_cpus_whatever_the_device(
    demo_model: InstalledModel, tile_features: TileFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encoder_of(demo_model)
    encoder._model.to("meta")
    encoder._device = torch.device("meta")  # it computes nothing, but everything else is as on a GPU
    devices: list[str] = []

    def noted(coords: torch.Tensor, tile_size: float, slide_ngrids: int) -> torch.Tensor:
        devices.append(coords.device.type)
        index = grid_index(coords, tile_size, slide_ngrids)
        devices.append(index.device.type)
        return index

    monkeypatch.setattr(longnet, "grid_index", noted)

    with pytest.raises(NotImplementedError, match="out of meta tensor"):
        encoder.encode(tile_features)
    assert devices == ["cpu", "cpu"]


class FullDevice(nn.Module):
    """Stands before a model; out of memory the first `times`."""

    def __init__(self, model: LongNetViT, times: int) -> None:
        super().__init__()
        self.inner, self.norm, self.times = model, model.norm, times
        self.held: list[weakref.ref[torch.Tensor]] = []

    def forward(self, features: torch.Tensor, coords: torch.Tensor, **options: Any) -> SlideStates:
        self.held.append(weakref.ref(features))
        if len(self.held) <= self.times:
            raise torch.OutOfMemoryError("CUDA out of memory")
        states: SlideStates = self.inner(features, coords, **options)
        return states


def test_memory_that_does_not_do_is_asked_for_once_more(
    demo_model: InstalledModel, tile_features: TileFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encoder_of(demo_model)
    expected = encoder.encode(tile_features)
    device = FullDevice(encoder._model, times=1)
    encoder._model = device  # type: ignore[assignment]
    held: list[bool] = []

    def emptied(where: torch.device) -> None:
        empty_cache(where)
        held.append(any(it() is not None for it in device.held))

    monkeypatch.setattr(encode_module, "empty_cache", emptied)

    assert np.array_equal(encoder.encode(tile_features), expected)

    assert held == [False], "nothing of the first attempt is held when the cache is emptied"


def test_memory_that_still_does_not_do_is_its_own_error(
    demo_model: InstalledModel, tile_features: TileFeatures
) -> None:
    encoder = encoder_of(demo_model)
    encoder._model = FullDevice(encoder._model, times=2)  # type: ignore[assignment]

    with pytest.raises(DeviceOutOfMemory):
        encoder.encode(tile_features)


def test_half_precision_stays_close(demo_model: InstalledModel, tile_features: TileFeatures) -> None:
    exact = encoder_of(demo_model).encode(tile_features).astype(np.float32)
    rounded = encoder_of(demo_model, dtype="bfloat16").encode(tile_features).astype(np.float32)

    assert np.abs(exact - rounded).max() < 0.1
