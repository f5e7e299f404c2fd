"""Files made to harm: the child refuses them, or dies within its limits; nothing in them is run or followed."""

import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from features_files import COORDS, TRIDENT_ATTRIBUTES, WIDTH, tile_features, write_hdf5, write_torch
from features_in_thread import FeaturesThread
from untrained_model import untrained_manifest

from encoders.errors import ReaderDied, SlideError, UnreadableSlide, UnusableFeatures
from encoders.precomputed.features_process import FeaturesProcess, read_given_features
from encoders.tiling.isolation import reader_channel
from encoders.tiling.isolation.reader_limits import ReaderLimits

UNTRAINED = untrained_manifest()
LIMITS = ReaderLimits(memory_bytes=2**30, deadline_s=60, cpu_s=60, max_tiles=100_000)


class Command:
    """Pickles to a call of os.system."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self._command,)


@pytest.fixture
def in_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what no limit and no confinement has a part in."""
    monkeypatch.setattr(reader_channel, "_start_child", FeaturesThread)


def refusal(path: Path) -> SlideError | ReaderDied:
    with pytest.raises((SlideError, ReaderDied)) as caught:
        read_given_features(path, UNTRAINED, LIMITS)
    return caught.value


@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: {"tile_embeds": it, "coords": torch.ones(4, 2)}])
def test_a_pickled_command_is_refused_and_not_run(tmp_path: Path, wrap: object) -> None:
    assert callable(wrap)
    path = write_torch(tmp_path / "f.pt", wrap(Command(f"touch {tmp_path / 'was-run'}")))

    error = refusal(path)

    assert isinstance(error, UnusableFeatures)
    assert "pickled objects" in error.detail
    assert not (tmp_path / "was-run").exists()


def archive_with(path: Path, pickled: bytes, *, zeros: int = 0) -> Path:
    """An archive as torch lays it out, with a pickle that torch would not write, and so many zeros, deflated."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")
        entry = zipfile.ZipInfo("archive/data/0")
        entry.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(entry, "w") as values:
            for _ in range(zeros // 2**20):
                values.write(bytes(2**20))
    return path


def pickle_of_tensor(path: Path, values: int) -> bytes:
    """What torch pickles of a tensor of so many values, without the values."""
    with torch.serialization.skip_data():
        torch.save(torch.empty(values).view(-1, 64), path)
    with zipfile.ZipFile(path) as archive:
        return archive.read(archive.namelist()[0])


@pytest.mark.parametrize(("memory_bytes", "error"), [(2**28, UnreadableSlide), (2**32, UnusableFeatures)])
def test_a_zip_bomb_ends_within_the_limits(tmp_path: Path, memory_bytes: int, error: type[SlideError]) -> None:
    size_bytes = 2**29
    pickled = pickle_of_tensor(tmp_path / "honest.pt", size_bytes // 4)
    bomb = archive_with(tmp_path / "f.pt", pickled, zeros=size_bytes)

    assert bomb.stat().st_size < 2**20
    with pytest.raises(error):  # with room enough it opens, and is only of a wrong shape
        read_given_features(bomb, UNTRAINED, replace(LIMITS, memory_bytes=memory_bytes))


def test_a_billion_laughs_are_refused_unexpanded(tmp_path: Path) -> None:
    # A list that holds the one before ten times, thirty times over: nothing but references.
    doubling = b"\x80\x02]q\x00" + b"".join(
        b"]q" + bytes([step]) + b"(" + b"h" + bytes([step - 1]) + (b"h" + bytes([step - 1])) * 9 + b"e"
        for step in range(1, 30)
    )
    assert isinstance(refusal(archive_with(tmp_path / "f.pt", doubling + b".")), SlideError | ReaderDied)


@pytest.mark.parametrize("pickled", [b"", b".", b"\x80\x02cos\nsystem\n(S'true'\ntR.", pickle.dumps([1]), b"\xff" * 99])
def test_a_pickle_that_is_none_of_torchs_is_refused(tmp_path: Path, pickled: bytes) -> None:
    assert isinstance(refusal(archive_with(tmp_path / "f.pt", pickled)), SlideError)


def test_a_tensor_of_one_value_and_a_huge_shape_is_refused_unread(tmp_path: Path) -> None:
    path = write_torch(tmp_path / "f.pt", torch.zeros(1).expand(2**40, 2**20))

    assert path.stat().st_size < 10_000
    assert isinstance(refusal(path), UnusableFeatures)


@pytest.mark.usefixtures("in_thread")
@pytest.mark.parametrize("keep", [100, 600, 0.5, 0.99])
def test_a_cut_torch_file_is_unreadable(tmp_path: Path, keep: float) -> None:
    path = write_torch(tmp_path / "f.pt", torch.ones(32, 96))
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])

    assert isinstance(refusal(path), UnreadableSlide)


@pytest.mark.usefixtures("in_thread")
@pytest.mark.parametrize("keep", [100, 2_000, 0.5, 0.99])
def test_a_cut_hdf5_file_is_unreadable(tmp_path: Path, keep: float) -> None:
    path = write_hdf5(tmp_path / "f.h5", tile_features(), **TRIDENT_ATTRIBUTES)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])

    assert isinstance(refusal(path), UnreadableSlide)


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A features file of somebody else on the same disk."""
    return write_hdf5(tmp_path / "private.h5", tile_features(), **TRIDENT_ATTRIBUTES)


@pytest.mark.parametrize("name", ["features", "coords"])
@pytest.mark.parametrize("soft", [True, False])
def test_links_are_not_followed(tmp_path: Path, private: Path, name: str, soft: bool) -> None:
    path = write_hdf5(tmp_path / "f.h5", tile_features(), **TRIDENT_ATTRIBUTES)
    with h5py.File(path, "a") as file:
        file.move(name, "elsewhere")
        file[name] = h5py.SoftLink("/elsewhere") if soft else h5py.ExternalLink(str(private), f"/{name}")

    assert "of its own" in refusal(path).detail


def test_a_virtual_dataset_is_refused(tmp_path: Path, private: Path) -> None:
    layout = h5py.VirtualLayout(shape=(4, WIDTH), dtype=np.float32)
    layout[:] = h5py.VirtualSource(str(private), "features", shape=(4, WIDTH))
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_virtual_dataset("features", layout)
        file["coords"] = COORDS

    assert "in the file itself" in refusal(tmp_path / "f.h5").detail


def test_externally_stored_values_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(4 * WIDTH * 4))
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("features", (4, WIDTH), np.float32, external=[(str(tmp_path / "secret"), 0, 4 * WIDTH * 4)])
        file["coords"] = COORDS

    assert "in the file itself" in refusal(tmp_path / "f.h5").detail


def test_a_group_in_place_of_a_dataset_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_group("features")

    assert isinstance(refusal(tmp_path / "f.h5"), UnusableFeatures)


@pytest.mark.parametrize("shape", [(2**40, WIDTH), (4, 2**40), (0, WIDTH), (4, 0), (), (4,), (2, 4, WIDTH)])
def test_a_declared_shape_that_nobody_wrote_is_refused_unread(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        chunks = (1,) * len(shape) if max(shape, default=0) > 2**30 else None
        file.create_dataset("features", shape, np.float32, chunks=chunks)
        file.create_dataset("coords", (shape[0] if shape and shape[0] < 100 else 4, 2), np.int64)

    assert isinstance(refusal(tmp_path / "f.h5"), UnusableFeatures)


def test_a_compression_bomb_ends_within_the_limits(tmp_path: Path) -> None:
    rows = 90_000  # one chunk of 1.5 GB that is compressed to almost nothing
    with h5py.File(tmp_path / "f.h5", "w", rdcc_nbytes=0) as file:
        bomb = file.create_dataset("features", (rows, 4_096), np.float32, chunks=(rows, 4_096), compression="gzip")
        bomb.id.write_direct_chunk((0, 0), deflated_zeros(rows * 4_096 * 4))
        file["coords"] = np.arange(rows * 2, dtype=np.int64).reshape(rows, 2)
    assert (tmp_path / "f.h5").stat().st_size < 2**23

    with FeaturesProcess(tmp_path / "f.h5", LIMITS) as process, pytest.raises((SlideError, ReaderDied)):
        process.rows()


def deflated_zeros(size: int) -> bytes:
    import zlib

    packer, piece = zlib.compressobj(1), bytes(2**20)
    return b"".join(
        [*(packer.compress(piece) for _ in range(size // 2**20)), packer.compress(bytes(size % 2**20)), packer.flush()]
    )


def test_a_refusal_names_no_file(tmp_path: Path) -> None:
    path = tmp_path / "Doe^Jane.pt"
    write_torch(path, {"Doe^Jane": torch.ones(2)})

    assert "Doe" not in refusal(path).detail
