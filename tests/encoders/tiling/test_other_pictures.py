"""Pictures of a TIFF that are no levels: said, or refused where one is the slide itself."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from encoders.errors import UnsupportedFormat
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.slide_readers.choose_reader import open_reader
from encoders.tiling.tissue.false_colors import check_colors

_TISSUE = np.random.default_rng(5).integers(120, 250, (512, 512, 3), dtype=np.uint8)


def _write(path: Path, pictures: list[NDArray[np.uint8]], kinds: list[int]) -> Path:
    with tifffile.TiffWriter(path) as tiff:
        for picture, kind in zip(pictures, kinds, strict=True):
            tiff.write(
                picture,
                photometric="rgb",
                tile=(128, 128),
                compression="zlib",
                subfiletype=kind,
                resolution=(20_000, 20_000),
                resolutionunit="CENTIMETER",
                metadata=None,
            )
    return path


@pytest.mark.parametrize("other", [_TISSUE[::-1], _TISSUE[:384, :448]])
def test_another_scan_in_the_file_is_said(tmp_path: Path, other: NDArray[np.uint8]) -> None:
    path = _write(tmp_path / "two.tif", [_TISSUE, np.ascontiguousarray(other)], [0, 0])

    assert [it.code for it in open_reader(path, ReaderLimits()).reader.facts.warnings] == ["pictures_not_read"]


def test_a_small_picture_beside_the_slide_is_nothing_to_say(tmp_path: Path) -> None:
    path = _write(tmp_path / "one.tif", [_TISSUE, np.ascontiguousarray(_TISSUE[:128, :256])], [0, 0])

    assert open_reader(path, ReaderLimits()).reader.facts.warnings == ()


def test_levels_in_the_wrong_order_are_no_small_slide(tmp_path: Path) -> None:
    levels = [np.ascontiguousarray(_TISSUE[::4, ::4]), np.ascontiguousarray(_TISSUE[::2, ::2]), _TISSUE]
    path = _write(tmp_path / "reversed.tif", levels, [1, 1, 0])

    with pytest.raises(UnsupportedFormat, match="larger picture than the one that it marks"):
        open_reader(path, ReaderLimits())


def test_a_grey_picture_in_rgb_is_doubted() -> None:
    grey = np.repeat(_TISSUE[..., :1], 3, axis=2)

    assert [it.code for it in check_colors(grey)] == ["colors_doubted"]
    assert check_colors(np.full((64, 64, 3), 255, np.uint8)) == ()
