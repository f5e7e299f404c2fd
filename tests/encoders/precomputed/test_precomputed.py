"""Features files as the field writes them, read through the child and checked against the untrained model.

One file of each format is read through the child, the rest by a thread of the test."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from features_files import COORDS, TRIDENT_ATTRIBUTES, WIDTH, tile_features, write_hdf5, write_torch
from features_in_thread import FeaturesThread
from untrained_model import untrained_manifest

from encoders.errors import UnsupportedFormat, UnusableFeatures
from encoders.features_file import write_features
from encoders.precomputed.check_features import check_filled
from encoders.precomputed.features_process import read_given_features
from encoders.precomputed.given_features import GivenFeatures, GivenSlideTokens, GivenTiles
from encoders.tiling.isolation import reader_channel
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.types import TileFeatures, TilePlan
from model_store.contracts.tile_encoder import Reduction
from model_store.manifest import Manifest

UNTRAINED = untrained_manifest()
LIMITS = ReaderLimits(deadline_s=60, cpu_s=60, max_tiles=1_000)
RASTER = [1, 2, 3, 0]


@pytest.fixture
def child() -> None:
    """For what is read through the child itself."""


@pytest.fixture(autouse=True)
def _in_thread(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "child" not in request.fixturenames:
        monkeypatch.setattr(reader_channel, "_start_child", FeaturesThread)


def like_published(manifest: Manifest) -> Manifest:
    """The same model, but with the published grid, which does not ask for the tile's side in level-0 pixels."""
    spec = manifest.slide_stage.model_copy(update={"tile_stride_px_level": "tile_px"})
    return manifest.model_copy(update={"slide_stage": spec})


def one_row_of(value: float) -> np.ndarray:
    """Tile features whose row 2 holds a number that float32 takes and no encoder makes."""
    features = tile_features().copy()
    features[2, 5] = value
    return features


def read(path: Path, manifest: Manifest = UNTRAINED, limits: ReaderLimits = LIMITS) -> GivenFeatures:
    return read_given_features(path, manifest, limits)


def read_tiles(path: Path, manifest: Manifest = UNTRAINED) -> GivenTiles:
    given = read(path, manifest)
    assert isinstance(given, GivenTiles)
    return given


def test_tridents_file_is_read_in_raster_order(child: None, tmp_path: Path) -> None:
    given = read_tiles(write_hdf5(tmp_path / "f.h5", **TRIDENT_ATTRIBUTES))

    assert given.coords.tolist() == [[0, 0], [256, 0], [0, 256], [512, 256]]
    assert np.array_equal(given.features, tile_features()[RASTER])
    assert given.features.dtype == np.float32
    assert given.statements.side_px_level0 == 256
    assert given.plan is None


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_are_read_as_float32(tmp_path: Path, dtype: type) -> None:
    values = tile_features().astype(dtype)

    given = read_tiles(write_hdf5(tmp_path / "f.h5", values, **TRIDENT_ATTRIBUTES))

    assert np.array_equal(given.features, values[RASTER].astype(np.float32))


def test_a_leading_axis_of_one_and_compression_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("features", data=tile_features()[None], compression="gzip", shuffle=True)
        file.create_dataset("coords", data=COORDS, compression="lzf").attrs.update(TRIDENT_ATTRIBUTES)

    assert np.array_equal(read_tiles(tmp_path / "f.h5").features, tile_features()[RASTER])


def test_clams_file_without_attributes_suffices_for_the_published_grid(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "f.h5")

    assert read_tiles(path, like_published(UNTRAINED)).statements.side_px_level0 is None
    with pytest.raises(UnusableFeatures, match="patch_size_level0"):
        read(path)


@pytest.mark.parametrize(
    ("name", "dtype"), [("tile_embeds", torch.float16), ("features", torch.bfloat16), ("features", torch.float32)]
)
def test_gigapaths_dictionary_is_read(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    values = torch.from_numpy(tile_features()).to(dtype)
    content = {name: values, "coords": torch.from_numpy(COORDS).to(torch.float32)}

    given = read_tiles(write_torch(tmp_path / "f.pt", content), like_published(UNTRAINED))

    assert given.coords.tolist() == COORDS[RASTER].tolist()
    assert np.array_equal(given.features, values.float().numpy()[RASTER])


@pytest.mark.parametrize("reduction", ["area", "dct"])
def test_our_own_file_brings_its_whole_plan_back(tmp_path: Path, plan: TilePlan, reduction: Reduction) -> None:
    plan = replace(plan, reduction=reduction)
    features = TileFeatures(plan, tile_features(3))
    write_features(tmp_path / "f.h5", features)

    given = read_tiles(tmp_path / "f.h5")

    assert given.plan is not None
    assert {**vars(given.plan), "coords": None} == {**vars(plan), "coords": None}
    assert np.array_equal(given.plan.coords, plan.coords)
    assert np.array_equal(given.features, features.features)


def test_our_own_file_from_before_there_was_a_choice_was_reduced_by_area(tmp_path: Path, plan: TilePlan) -> None:
    write_features(tmp_path / "f.h5", TileFeatures(plan, tile_features(3)))
    with h5py.File(tmp_path / "f.h5", "a") as file:
        del file.attrs["reduction"]

    given = read_tiles(tmp_path / "f.h5")

    assert given.plan is not None
    assert given.plan.reduction == "area"


@pytest.mark.parametrize(("shape", "dtype"), [((32, 96), torch.float16), ((1, 32, 96), torch.float32)])
def test_slide_features_are_taken_as_they_are(
    child: None, tmp_path: Path, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    tokens = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)

    given = read(write_torch(tmp_path / "f.pt", tokens))

    assert isinstance(given, GivenSlideTokens)
    assert np.array_equal(given.tokens, tokens.float().numpy().reshape(32, 96))


def test_the_projectors_zero_padding_is_stripped(tmp_path: Path) -> None:
    tokens = torch.randn(32, 96)
    padded = torch.nn.functional.pad(tokens, (0, 32))

    given = read(write_torch(tmp_path / "f.pt", padded))

    assert isinstance(given, GivenSlideTokens)
    assert np.array_equal(given.tokens, tokens.numpy())


def bare(rows: int, columns: int) -> torch.Tensor:
    return torch.ones(rows, columns)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (bare(32, 128), "not all zero"),
        (bare(31, 96), "no coordinates"),
        (bare(32, 100), "no coordinates"),
        (bare(4, WIDTH), "no coordinates"),
        (torch.ones(96), "rows × columns"),
        (torch.ones(2, 32, 96), "rows × columns"),
        (torch.ones(32, 96, dtype=torch.int64), "floating-point"),
        (torch.full((32, 96), float("nan")), "NaN"),
        (torch.full((32, 96), 1e30), "16-bit"),
        (torch.zeros(32, 96), "all zero: the file was not filled"),
        (torch.ones(0, 96), "0 rows"),
        (torch.ones(32, 96).to_sparse(), "exactly two tensors"),
        (torch.ones(32, 96, dtype=torch.complex64), "exactly two tensors"),
        ([torch.ones(32, 96)], "exactly two tensors"),
        ({"tokens": torch.ones(32, 96)}, "exactly two tensors"),
        ({"a": torch.ones(32, 96), "coords": torch.ones(32, 2)}, "exactly two tensors"),
        ({"features": bare(4, WIDTH), "coords": torch.ones(3, 2)}, "one row of level-0"),
        ({"features": bare(4, WIDTH), "coords": torch.ones(4, 3)}, "one row of level-0"),
        ({"features": bare(4, WIDTH), "coords": torch.full((4, 2), 0.5)}, "whole level-0 pixels"),
        ({"features": bare(4, WIDTH), "coords": torch.full((4, 2), float("nan"))}, "whole level-0 pixels"),
    ],
)
def test_a_torch_file_of_something_else_is_refused(tmp_path: Path, content: Any, says: str) -> None:
    with pytest.raises(UnusableFeatures, match=re.escape(says)):
        read(write_torch(tmp_path / "f.pt", content))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"features": tile_features(width=96)}, "96 wide; the served model needs 192"),
        ({"features": tile_features(3)}, "one row of level-0"),
        ({"features": tile_features().astype(np.int32)}, "floating-point"),
        ({"features": np.full((4, WIDTH), np.inf)}, "NaN or infinite"),
        ({"features": one_row_of(1e38)}, "1 rows of the features, the first is 2, hold values up to 1.0e+38"),
        ({"features": one_row_of(-70_000.0)}, "hold values up to 7.0e"),
        ({"features": np.full((4, WIDTH), 1e300)}, "NaN or infinite"),
        ({"coords": None}, "no coordinates"),
        ({"coords": COORDS - 256}, "none negative"),
        ({"coords": COORDS * 0}, "same tile"),
        ({"coords": COORDS.astype(np.float32) + 0.5}, "whole level-0 pixels"),
        ({"patch_size": 512}, "256 px"),
        ({"target_magnification": 40}, "0.25 µm/px"),
        ({"overlap": 32}, "overlapping"),
        ({"patch_size_level0": -1}, "patch_size_level0"),
        ({"patch_size": "256"}, "`patch_size` is text and must be a number"),
        ({"patch_size_level0": np.bytes_(b"256")}, "`patch_size_level0` is text and must be a number"),
        ({"patch_size": 256.5}, "`patch_size` is not what it should be"),
        ({"features": np.zeros((4, WIDTH), np.float16)}, "4 of 4 rows of the features are all zero: the file was not"),
        ({"patch_size": np.arange(5)}, "single value"),
    ],
)
def test_hdf5_of_something_else_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UnusableFeatures, match=re.escape(says)):
        read(write_hdf5(tmp_path / "f.h5", **{**TRIDENT_ATTRIBUTES, **changes}))


def test_more_rows_than_a_slide_may_have_are_refused(child: None, tmp_path: Path) -> None:
    path = write_torch(tmp_path / "f.pt", {"features": torch.ones(1_001, WIDTH), "coords": torch.ones(1_001, 2)})

    with pytest.raises(UnusableFeatures, match="1001 rows"):
        read(path)


def test_neither_kind_of_file_is_unsupported(child: None, tmp_path: Path) -> None:
    (tmp_path / "f.h5").write_bytes(b"neither")

    with pytest.raises(UnsupportedFormat):
        read(tmp_path / "f.h5")


def test_coordinates_as_shares_are_named(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "f.h5", coords=COORDS / 1024, **TRIDENT_ATTRIBUTES)

    with pytest.raises(UnusableFeatures, match="between 0 and 1"):
        read(path)


def with_equal_rows(count: int, value: float) -> np.ndarray:
    """100 rows, of which so many, from the end, hold nothing but this value."""
    features = tile_features(100)
    features[100 - count :] = value
    return features


@pytest.mark.parametrize(
    ("features", "says"),
    [
        (with_equal_rows(6, 0.0), "6 of 100 rows of the features are all zero"),
        (with_equal_rows(51, 0.25), "51 of 100 rows of the features are the same row"),
        (with_equal_rows(100, -0.25), "100 of 100 rows of the features are the same row"),
    ],
)
def test_rows_that_say_nothing_are_refused(features: np.ndarray, says: str) -> None:
    with pytest.raises(UnusableFeatures, match=says):
        check_filled(features)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rows_that_differ_by_rounding_alone_are_refused(dtype: type[np.floating]) -> None:
    one = tile_features(1)
    noise = np.random.default_rng(1).normal(0, 1e-4, (300, one.shape[1])) * np.abs(one).max()
    alike = (one + noise).astype(dtype).astype(np.float32)

    with pytest.raises(UnusableFeatures, match="the same row but for rounding"):
        check_filled(alike)
    alike[:151] = tile_features(151)
    check_filled(alike)


def test_unscanned_white_and_a_tile_left_out_are_believed() -> None:
    one_value_first = tile_features(100)
    one_value_first[:, 0] = 0
    for features in (with_equal_rows(5, 0.0), with_equal_rows(50, 0.25), one_value_first, tile_features(1)):
        check_filled(features)
