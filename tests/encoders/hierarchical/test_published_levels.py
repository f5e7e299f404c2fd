"""The public code's files of a slide, in and out: bit by bit the same, and every mistake said."""

import json
import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from drawn_levels import drawn_levels

from encoders.errors import UnusableFeatures
from encoders.hierarchical.levels import Levels
from encoders.hierarchical.levels_file import read_levels, write_levels
from encoders.hierarchical.published_levels import PublishedSlide, read_published, write_published

STEM = "TCGA-00-0000"
# As drawn: two regions of 1024 px, half of one around them.
SLIDE = PublishedSlide(width=3072, height=2048, region_px=1024)


@pytest.fixture(scope="module")
def levels() -> Levels:
    return drawn_levels(region_grid=(2, 1))


@pytest.fixture
def folder(tmp_path: Path, levels: Levels) -> Path:
    write_published(levels, tmp_path, STEM)
    return tmp_path


def changed(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    """One of the files with other contents; `cells` is in a folder of its own."""
    path = folder / name / (f"{STEM}/encoded_cell_features.pt" if name == "cells" else f"{STEM}.pt")
    torch.save(change(torch.load(path, weights_only=True)), path)


def with_coords(folder: Path, coords: Any) -> None:
    with h5py.File(folder / "coords_region4096_valid" / f"{STEM}.h5", "w") as file:
        file["coords"] = coords


def test_what_is_written_is_read_again_bit_by_bit(folder: Path, levels: Levels, tmp_path: Path) -> None:
    read = read_published(folder, STEM, replace(SLIDE, slide_id=levels.slide_id))
    write_levels(tmp_path / "levels.h5", read)

    again = read_levels(tmp_path / "levels.h5")
    assert again.cells is None
    for field in fields(Levels):
        mine, theirs = getattr(levels, field.name), getattr(again, field.name)
        if isinstance(mine, np.ndarray):
            assert (theirs.dtype, theirs.shape) == (mine.dtype, mine.shape)
            assert theirs.tobytes() == mine.tobytes(), field.name
        elif field.name not in ("cells", "encoder_id"):
            assert theirs == mine, field.name
    assert (again.encoder_id, read_published(folder, STEM, SLIDE).slide_id) == ("0" * 16, "0" * 64)


def test_the_files_are_those_of_the_public_code(folder: Path, levels: Levels) -> None:
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}

    cells = f"cells/{STEM}/encoded_cell_features.pt"
    pickles = {name: torch.load(path, weights_only=True) for name, path in files.items() if name.endswith(".pt")}
    assert set(files) == {*pickles, f"coords_region4096_valid/{STEM}.h5"}
    assert set(pickles) == {f"{it}/{STEM}.pt" for it in ("patches_filtered", "region_4k", "wsi")} | {cells}
    assert {
        name: (value.dtype, tuple(value.shape))
        for name, value in {**pickles[f"patches_filtered/{STEM}.pt"], **pickles[cells]}.items()
        if name != "feature_dim"
    } == {
        "selected_features": (torch.float32, (2, 5, 8)),
        "selected_indices": (torch.int64, (2, 5)),
        "encoded_cell_features": (torch.float32, (2, 5, 4)),
        "selected_patch_cell_level_indices": (torch.int64, (2, 5)),
        "region_coords_level0": (torch.int64, (2, 2)),
        "region_has_detail_dump": (torch.bool, (2,)),
    }
    assert pickles[cells]["feature_dim"] == 4
    assert pickles[f"region_4k/{STEM}.pt"].dtype == pickles[f"wsi/{STEM}.pt"].dtype == torch.float32
    assert np.array_equal(pickles[f"wsi/{STEM}.pt"].numpy(), levels.slide_features)
    with h5py.File(files[f"coords_region4096_valid/{STEM}.h5"]) as file:
        assert file["coords"].dtype == np.int64
        assert np.array_equal(file["coords"], levels.region_coords)


def test_halves_are_read_exactly_and_other_files_are_no_matter(folder: Path, levels: Levels) -> None:
    changed(folder, "patches_filtered", lambda it: {**it, "selected_features": it["selected_features"].half()})
    (folder / "patches").mkdir()
    (folder / "patches" / f"{STEM}.pt").write_bytes(b"not read")
    (folder / "metadata").mkdir()
    (folder / "metadata" / f"{STEM}.json").write_text(json.dumps({"region_size": 1024, "read_level_4096": 0}))

    read = read_published(folder, STEM, SLIDE)

    assert np.array_equal(read.patch_features, levels.patch_features.astype(np.float16).astype(np.float32))


def entry(name: str, change: Callable[[torch.Tensor], Any]) -> Callable[[Any], Any]:
    return lambda table: {**table, name: change(table[name])}


def put(place: tuple[int, ...], value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor.clone().index_put_(tuple(torch.tensor(it) for it in place), torch.tensor(value))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("region_4k", lambda it: it[:1], "not [1, any, any] as the others want. Give the files of one run"),
        ("region_4k", lambda it: it[:0], "holds 0 regions"),
        ("region_4k", lambda it: it[0], "has the shape [6], not [any, any]"),
        ("region_4k", lambda it: it.double(), "region_4k is float64; save it as float32"),
        ("region_4k", put((1, 2), float("nan")), "not finite"),
        ("region_4k", lambda it: {"features": it}, "region_4k is no plain tensor"),
        ("region_4k", lambda it: it.to_sparse(), "region_4k is no plain tensor"),
        ("wsi", put((0,), 9.0), "wsi is not the mean of region_4k"),
        ("wsi", lambda it: it[None], "wsi has the shape [1, 6], not [6]"),
        ("patches_filtered", lambda it: it["selected_features"], "has no selected_features, selected_indices"),
        ("patches_filtered", entry("selected_features", lambda it: it[:, :4]), "selected_indices of patches_filtered"),
        ("patches_filtered", entry("selected_features", put((0, 0, 0), float("inf"))), "not finite"),
        ("patches_filtered", entry("selected_indices", put((0, 0), 16)), "a region of 1024 px has patches 0 to 15"),
        ("patches_filtered", entry("selected_indices", put((0, 0), -1)), "reach from -1"),
        ("patches_filtered", entry("selected_indices", lambda it: it * 0), "twice in 2 regions, the first is 0"),
        ("patches_filtered", entry("selected_indices", lambda it: it.float()), "is float32; save it as int64"),
        ("patches_filtered", entry("selected_indices", lambda it: it.flip(1)), "differ from patches_filtered in 2 "),
        ("patches_filtered", entry("selected_features", lambda it: torch.zeros(1).expand(2, 5, 10**9)), "larger than"),
        ("cells", entry("encoded_cell_features", lambda it: it[:, :4]), "has the shape [2, 4, 4], not [2, 5, any]"),
        ("cells", entry("encoded_cell_features", put((1, 1, 1), float("nan"))), "not finite"),
        ("cells", entry("region_coords_level0", lambda it: it + 1), "differ from coords_region4096_valid in 2 regions"),
        ("cells", entry("feature_dim", lambda _: 384), "feature_dim of cells is 384, and its features are 4 wide"),
        ("cells", lambda it: {"feature_dim": 4}, "cells has no encoded_cell_features, selected_patch_cell"),
    ],
)
def test_files_that_contradict_each_other_are_refused(
    folder: Path, name: str, change: Callable[[Any], Any], said: str
) -> None:
    changed(folder, name, change)

    with pytest.raises(UnusableFeatures) as refused:
        read_published(folder, STEM, SLIDE)

    assert said in refused.value.detail
    assert STEM not in refused.value.detail


@pytest.mark.parametrize(
    ("coords", "said"),
    [
        (np.zeros((3, 2), np.int64), "has 3 regions and region_4k 2"),
        (np.full((2, 2), 3000, np.int64), "2 of 2 regions lie outside a slide of 3072 × 2048 px"),
        (np.full((2, 2), -1, np.int64), "2 of 2 regions lie outside"),
        (np.zeros((2, 2)), "no `coords` of whole numbers"),
        (np.zeros((2, 3), np.int64), "no `coords` of whole numbers"),
        (h5py.Empty("i8"), "no `coords` of whole numbers"),
    ],
)
def test_coordinates_that_cannot_be_are_refused(folder: Path, coords: Any, said: str) -> None:
    with_coords(folder, coords)

    with pytest.raises(UnusableFeatures, match=said):
        read_published(folder, STEM, SLIDE)


def test_missing_and_damaged_files_are_named_by_their_folders(folder: Path) -> None:
    wsi, coords = folder / "wsi" / f"{STEM}.pt", folder / "coords_region4096_valid" / f"{STEM}.h5"
    whole = wsi.read_bytes()
    for content in (whole[:-300], b"", b"\x80\x02."):
        wsi.write_bytes(content)
        with pytest.raises(UnusableFeatures, match=r"^wsi "):
            read_published(folder, STEM, SLIDE)
    wsi.write_bytes(whole)
    coords.write_bytes(coords.read_bytes()[:200])
    with pytest.raises(UnusableFeatures, match="coords_region4096_valid is cut or damaged"):
        read_published(folder, STEM, SLIDE)
    coords.unlink()
    wsi.unlink()
    with pytest.raises(UnusableFeatures, match="no file of this id in wsi, coords_region4096_valid"):
        read_published(folder, STEM, SLIDE)


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_pickled_objects_are_refused_and_nothing_runs(folder: Path, tmp_path: Path) -> None:
    changed(folder, "wsi", lambda it: {"wsi": it, "more": Payload(tmp_path / "ran")})

    with pytest.raises(UnusableFeatures, match="holds more than tensors"):
        read_published(folder, STEM, SLIDE)

    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ('{"region_size": 4096}', "region_size 4096, and 1024 is read here"),
        ('{"read_level_4096": 1}', "read_level_4096 1, and 0 is read here"),
        ("{", "metadata is damaged"),
    ],
)
def test_metadata_of_other_regions_is_refused(folder: Path, metadata: str, said: str) -> None:
    (folder / "metadata").mkdir()
    (folder / "metadata" / f"{STEM}.json").write_text(metadata)

    with pytest.raises(UnusableFeatures, match=said):
        read_published(folder, STEM, SLIDE)


def test_a_failed_export_leaves_nothing_new(tmp_path: Path, levels: Levels) -> None:
    (tmp_path / "cells").touch()  # where a folder has to be

    with pytest.raises(OSError, match=r"exists|Not a directory"):
        write_published(levels, tmp_path, STEM)

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "cells"]
