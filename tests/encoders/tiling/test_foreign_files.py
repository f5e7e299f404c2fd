"""Files that are no slide are called what they are."""

import gzip
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from encoders.tiling.foreign_files import alone, foreign_file


def written(kind: str) -> bytes:
    out = io.BytesIO()
    values = np.ones((4, 3), dtype=np.uint8)
    if kind == "old torch":
        torch.save(torch.ones(3), out, _use_new_zipfile_serialization=False)
    elif kind == "npy":
        np.save(out, values)
    elif kind == "npz":
        np.savez(out, features=values)
    elif kind == "pickle":
        out.write(pickle.dumps({"features": 1}))
    elif kind == "zip":
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("Doe^Jane.svs", b"II*\x00")
    elif kind == "tar":
        with tarfile.open(fileobj=out, mode="w") as packed:
            packed.addfile(tarfile.TarInfo("Doe^Jane.svs"))
    elif kind in ("jpg", "png"):
        out.write(cv2.imencode(f".{kind}", values)[1].tobytes())
    else:
        out.write({"gzip": gzip.compress(b"x"), "csv": b"x,y,f0\n0,0,1.5\n", "pdf": b"%PDF-1.7"}[kind])
    return out.getvalue()


@pytest.mark.parametrize(
    ("kind", "what", "advice"),
    [
        ("old torch", "before version 1.6", "Send HDF5"),
        ("npy", ".npy", "Send HDF5"),
        ("npz", ".npz", "Send HDF5"),
        ("pickle", "pickle", "Send HDF5"),
        ("csv", "CSV", "Send HDF5"),
        ("zip", "ZIP", "Unpack it"),
        ("tar", "tar", "Unpack it"),
        ("gzip", "gzip", "Unpack it"),
        ("pdf", "PDF", "scanner's original"),
        ("jpg", "JPEG", "scanner's original"),
        ("png", "PNG", "scanner's original"),
    ],
)
def test_what_a_file_is_and_what_to_send_instead(tmp_path: Path, kind: str, what: str, advice: str) -> None:
    path = tmp_path / "Doe^Jane.svs"
    path.write_bytes(written(kind))

    sentence = foreign_file(path)

    assert what in sentence
    assert advice in sentence
    assert "Doe" not in sentence
    assert len(sentence) <= 300


@pytest.mark.parametrize(
    "name", ["a/Slide.MRXS", "x.vsi", "x.vms", "x.vmu", "Data0001.dat", "Index.dat", "frame_t.ets"]
)
def test_a_part_of_a_slide_that_comes_alone_is_known_by_its_name(name: str) -> None:
    assert alone(name) is not None


def test_a_slide_of_one_file_is_none_of_these() -> None:
    assert alone("Doe^Jane.svs") is None
    assert alone("") is None
