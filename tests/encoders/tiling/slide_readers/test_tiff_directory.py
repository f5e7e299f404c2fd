import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

from encoders.tiling.slide_readers.tiff_directory import is_truncated_tiff


@pytest.fixture(params=[False, True], ids=["classic", "big"])
def whole(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Two pages, whose directories lie behind their pixels."""
    path = tmp_path / "whole.tiff"
    with tifffile.TiffWriter(path, bigtiff=request.param) as tiff:
        for side in (64, 32):
            tiff.write(np.zeros((side, side), dtype=np.uint8))
    return path


def test_a_whole_file_is_not_truncated(whole: Path) -> None:
    assert not is_truncated_tiff(whole)


def test_a_file_that_ends_before_or_in_a_directory_is_truncated(whole: Path) -> None:
    data = whole.read_bytes()
    order, big = "<", data[2] == 43
    first = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)[0]

    for size in (first - 1, first, first + 1, first + 20):
        whole.write_bytes(data[:size])
        assert is_truncated_tiff(whole), size


@pytest.mark.parametrize("data", [b"", b"II", b"II*", b"not a tiff at all", b"II\x07\x00" + b"\xff" * 40])
def test_other_files_are_not_truncated_tiffs(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(data)

    assert is_truncated_tiff(path) is (data in (b"II", b"II*"))


def test_a_chain_of_directories_that_loops_ends(tmp_path: Path) -> None:
    path = tmp_path / "loop.tiff"
    # One directory at 8 with no entries, followed by itself.
    path.write_bytes(b"II*\x00" + struct.pack("<I", 8) + struct.pack("<H", 0) + struct.pack("<I", 8) + b"\x00" * 64)

    assert not is_truncated_tiff(path)
