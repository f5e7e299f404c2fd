import zipfile
from pathlib import Path

import pytest
import torch
from features_files import write_hdf5, write_torch

from encoders.precomputed.features_kind import features_kind


def test_hdf5_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    assert features_kind(write_hdf5(tmp_path / "slide.svs")) == "hdf5"


def test_a_torch_archive_is_known_by_its_first_entry(tmp_path: Path) -> None:
    assert features_kind(write_torch(tmp_path / "slide.svs", torch.zeros(2, 2))) == "torch"


@pytest.mark.parametrize(
    "content", [b"", b"\x89HDF", b"PK\x03\x04", b"II*\x00" + bytes(100), b"PK\x03\x04" + b"\xff" * 600]
)
def test_anything_else_is_none_whatever_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "features.h5"
    path.write_bytes(content)

    assert features_kind(path) is None


@pytest.mark.parametrize("name", ["data.pkl", "a/b/data.pkl", "archive/data.pkl.txt", "word/document.xml"])
def test_another_zip_is_none(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "features.pt", "w") as archive:
        archive.writestr(name, b"content")

    assert features_kind(tmp_path / "features.pt") is None


def test_a_torch_file_of_before_the_archives_is_none(tmp_path: Path) -> None:
    torch.save(torch.zeros(2), tmp_path / "old.pt", _use_new_zipfile_serialization=False)

    assert features_kind(tmp_path / "old.pt") is None
