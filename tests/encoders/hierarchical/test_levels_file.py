import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from drawn_levels import drawn_levels

from encoders.errors import StoredFileDamaged
from encoders.hierarchical import levels_checks, levels_reader
from encoders.hierarchical.levels import FoundCells, Levels
from encoders.hierarchical.levels_file import read_levels, write_levels
from encoders.hierarchical.levels_reader import LevelsReader


def _assert_equal(one: Levels | FoundCells, other: Levels | FoundCells) -> None:
    for field in fields(one):
        first, second = getattr(one, field.name), getattr(other, field.name)
        if isinstance(first, FoundCells):
            _assert_equal(first, second)
        elif isinstance(first, np.ndarray):
            assert first.dtype == second.dtype
            assert np.array_equal(first, second)
        else:
            assert first == second


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    levels = drawn_levels()
    write_levels(tmp_path / "l.h5", levels)

    _assert_equal(read_levels(tmp_path / "l.h5"), levels)


def test_a_slide_without_cells_and_one_of_unknown_cells_are_not_the_same(tmp_path: Path) -> None:
    none = drawn_levels(cells_per_patch=0)
    write_levels(tmp_path / "none.h5", none)
    write_levels(tmp_path / "unknown.h5", replace(none, cells=None, level0_width=None, level0_height=None))

    _assert_equal(read_levels(tmp_path / "none.h5"), none)
    unknown = read_levels(tmp_path / "unknown.h5")
    assert (unknown.cells, unknown.level0_width, unknown.level0_height) == (None, None, None)


def test_names_types_and_attributes_are_the_documented_ones(tmp_path: Path) -> None:
    levels = drawn_levels(region_grid=(1, 1), chosen=3, cells_per_patch=2)
    assert levels.cells is not None
    write_levels(tmp_path / "l.h5", levels)

    with h5py.File(tmp_path / "l.h5") as file:
        found = {}
        file.visititems(
            lambda name, item: found.update({name: (str(item.dtype), item.shape)} if hasattr(item, "shape") else {})
        )
        attributes = dict(file.attrs)
    assert found == {
        "regions/coords": ("int32", (1, 2)),
        "regions/features": ("float32", (1, 6)),
        "slide/features": ("float32", (6,)),
        "patches/index": ("uint8", (1, 3)),
        "patches/features": ("float32", (1, 3, 8)),
        "cells/features": ("float32", (1, 3, 4)),
        "cells/found/patch": ("int32", (4,)),
        "cells/found/centroid": ("float32", (4, 2)),
        "cells/found/kind": ("uint8", (4,)),
        "cells/found/outline_start": ("int64", (5,)),
        "cells/found/outline": ("int32", (len(levels.cells.outline), 2)),
    }
    assert attributes == {
        "format": "eyepiece-levels",
        "format_version": 1,
        "slide_id": "ab" * 32,
        "encoder_id": "cd" * 8,
        "region_px": 1024,
        "patch_px": 256,
        "level0_width": 2048,
        "level0_height": 2048,
    }


def test_patches_lie_row_by_row_in_their_region() -> None:
    levels = replace(
        drawn_levels(region_grid=(1, 1), cells_per_patch=0), patch_index=np.array([[0, 1, 4, 15]], np.uint8)
    )

    assert (levels.patch_coords() - levels.region_coords[:, None]).tolist() == [
        [[0, 0], [256, 0], [0, 256], [768, 768]]
    ]


@pytest.mark.parametrize("keep", [0, 100, 3_000, -1])
def test_a_cut_file_is_damaged(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "l.h5"
    write_levels(path, drawn_levels())
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(StoredFileDamaged):
        read_levels(path)


def test_any_flipped_bit_of_a_number_is_found(tmp_path: Path) -> None:
    path = tmp_path / "l.h5"
    write_levels(path, drawn_levels())
    with h5py.File(path) as file:
        places = [
            file[name].id.get_chunk_info(0) for name in ("regions/coords", "patches/features", "cells/found/outline")
        ]
    whole = path.read_bytes()
    for place in places:
        flipped = bytearray(whole)
        flipped[place.byte_offset + place.size // 2] ^= 4
        path.write_bytes(flipped)

        with pytest.raises(StoredFileDamaged):
            read_levels(path)


def _delete(name: str) -> Callable[[h5py.File], None]:
    return lambda file: file.pop(name)


def _replace(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[h5py.File], None]:
    def mutate(file: h5py.File) -> None:
        values = file.pop(name)[()] if name in file else None
        file[name] = change(values)

    return mutate


def _set(name: str, value: object) -> Callable[[h5py.File], None]:
    return lambda file: file.attrs.__setitem__(name, value)


def _huge(file: h5py.File) -> None:
    """Little on disk, 4 TB when it is read."""
    del file["patches/features"]
    file.create_dataset("patches/features", (4, 5, 2**36), np.float32, chunks=(1, 1, 1024), compression="gzip")


def _linked(file: h5py.File) -> None:
    del file["regions/features"]
    file["regions/features"] = h5py.ExternalLink("other.h5", "/features")


def _stored_elsewhere(file: h5py.File) -> None:
    del file["slide/features"]
    file.create_dataset("slide/features", (6,), np.float32, external=[("/etc/hostname", 0, 24)])


def _at(values: np.ndarray, place: object, value: float) -> np.ndarray:
    changed = values.copy()
    changed[place] = value
    return changed


@pytest.mark.parametrize(
    "mutate",
    [
        _delete("regions"),
        _delete("patches/index"),
        _delete("cells/found/kind"),
        _set("format", "another"),
        _set("format_version", 2),
        _set("slide_id", "../x"),
        _set("encoder_id", "ab" * 9),
        _set("region_px", 1000),
        _set("region_px", 0),
        _set("patch_px", 16),
        _set("patch_px", 256.0),
        _set("level0_width", [1, 2]),
        _set("level0_height", 1024),
        _huge,
        _linked,
        _stored_elsewhere,
        _replace("regions/coords", lambda v: v.astype(np.int64)),
        _replace("regions/coords", lambda v: v[:3]),
        _replace("regions/coords", lambda v: _at(v, (0, 0), -1)),
        _replace("regions/coords", lambda v: _at(v, (0, 1), 3072)),
        _replace("patches/index", lambda v: _at(v, (0, 0), 16)),
        _replace("patches/index", lambda v: _at(v, (0, 0), v[0, 1])),
        _replace("cells/found/patch", lambda v: v[::-1]),
        _replace("cells/found/patch", lambda v: _at(v, -1, 20)),
        _replace("cells/found/patch", lambda v: _at(v, 0, -1)),
        _replace("cells/found/kind", lambda v: _at(v, 0, 6)),
        _replace("cells/found/centroid", lambda v: _at(v, (0, 0), np.nan)),
        _replace("cells/found/centroid", lambda v: _at(v, (0, 0), 0)),
        _replace("cells/found/outline", lambda v: _at(v, (3, 1), 0)),
        _replace("cells/found/outline_start", lambda v: _at(v, 2, v[1])),
        _replace("cells/found/outline_start", lambda v: _at(v, 0, 1)),
        _replace("cells/found/outline_start", lambda v: _at(v, -1, 10**12)),
    ],
)
def test_a_file_that_contradicts_itself_is_damaged(tmp_path: Path, mutate: Callable[[h5py.File], None]) -> None:
    path = tmp_path / "l.h5"
    write_levels(path, drawn_levels())
    with h5py.File(path, "r+") as file:
        mutate(file)

    with pytest.raises(StoredFileDamaged) as raised:
        read_levels(path)
    assert str(tmp_path) not in raised.value.detail
    with pytest.raises(StoredFileDamaged), LevelsReader(path) as reader:
        reader.cells_of(0, 20)


@pytest.mark.parametrize("name", ["regions/features", "slide/features", "patches/features", "cells/features"])
def test_features_that_are_not_finite_are_damaged(tmp_path: Path, name: str) -> None:
    path = tmp_path / "l.h5"
    write_levels(path, drawn_levels())
    with h5py.File(path, "r+") as file:
        _replace(name, lambda v: _at(v, (0,) * v.ndim, np.nan))(file)

    with pytest.raises(StoredFileDamaged):
        read_levels(path)


@pytest.mark.parametrize("limit", ["MAX_REGIONS", "MAX_CELLS", "MAX_OUTLINE_POINTS", "MAX_BYTES"])
def test_there_are_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    levels = drawn_levels()
    write_levels(tmp_path / "l.h5", levels)
    monkeypatch.setattr(levels_checks, limit, 3)

    with pytest.raises(StoredFileDamaged):
        read_levels(tmp_path / "l.h5")
    with pytest.raises(ValueError, match=r"too (many|large)"):
        write_levels(tmp_path / "m.h5", levels)


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    levels = drawn_levels()
    with pytest.raises(ValueError, match="float64"):
        write_levels(tmp_path / "l.h5", replace(levels, region_features=levels.region_features.astype(np.float64)))
    with pytest.raises(ValueError, match="not finite"):
        write_levels(tmp_path / "l.h5", replace(levels, slide_features=levels.slide_features * np.float32("nan")))
    with pytest.raises(ValueError, match="regions/coords"):
        write_levels(tmp_path / "l.h5", replace(levels, patch_index=levels.patch_index[:2]))
    assert not (tmp_path / "l.h5").exists()


def test_the_largest_published_slide_fits() -> None:
    """563 regions of 16 patches, published widths, 300,000 cells of 40 corners."""
    shapes: dict[str, tuple[int, ...]] = {
        "regions/coords": (563, 2),
        "regions/features": (563, 192),
        "slide/features": (192,),
        "patches/index": (563, 16),
        "patches/features": (563, 16, 512),
        "cells/features": (563, 16, 384),
        "cells/found/patch": (300_000,),
        "cells/found/centroid": (300_000, 2),
        "cells/found/kind": (300_000,),
        "cells/found/outline_start": (300_001,),
        "cells/found/outline": (12_000_000, 2),
    }
    levels_checks.check_shapes(shapes)


def test_parts_of_a_file_are_what_the_whole_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = drawn_levels()
    write_levels(tmp_path / "l.h5", levels)
    monkeypatch.setattr(levels_reader, "_COUNTED_AT_ONCE", 7)
    assert levels.cells is not None
    whole = levels.cells

    with LevelsReader(tmp_path / "l.h5") as reader:
        assert (reader.slide_id, reader.region_px, reader.level0_width) == (levels.slide_id, 1024, 3072)
        assert np.array_equal(reader.patch_coords, levels.patch_coords())
        assert reader.cell_counts is not None
        assert reader.cell_counts.shape == (4, 5, 6)
        assert reader.cell_counts.sum(axis=(0, 1)).tolist() == [16] * 6
        assert reader.cell_counts[:, -1].sum() == 0
        second = reader.cells_of(5, 10)
        all_of_them = [reader.cells_of(patch, patch + 1) for patch in range(20)]

    assert (set(second.patch.tolist()), len(second.patch)) == ({5, 6, 7, 8}, 24)
    assert np.array_equal(np.concatenate([it.outline for it in all_of_them]), whole.outline)
    assert np.array_equal(np.concatenate([it.kind for it in all_of_them]), whole.kind)
    assert len(all_of_them[4].patch) == 0


def test_parts_of_a_file_of_unknown_cells(tmp_path: Path) -> None:
    write_levels(tmp_path / "l.h5", replace(drawn_levels(), cells=None))

    with LevelsReader(tmp_path / "l.h5") as reader:
        assert reader.cell_counts is None
        with pytest.raises(ValueError, match="nobody knows"):
            reader.cells_of(0, 1)


def test_reading_loads_no_torch() -> None:
    script = "import sys, encoders.hierarchical.levels_file; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
