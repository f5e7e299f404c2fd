"""Features files that name other files, in each layer alone: nothing of those files comes, nor whether they exist."""

import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from encoders.errors import ReaderDied, SlideError
from encoders.precomputed.features_process import FeaturesProcess
from encoders.sandbox.layers import ALL_LAYERS, Layer
from encoders.tiling.isolation.reader_process import ReaderLimits

SHAPE = (4, 8)
LAYERS: dict[str, frozenset[Layer]] = {"all": ALL_LAYERS, "landlock": frozenset({"landlock"}), "none": frozenset()}


def external_link(file: h5py.File, target: Path) -> None:
    file["features"] = h5py.ExternalLink(str(target), "features")


def external_storage(file: h5py.File, target: Path) -> None:
    file.create_dataset("features", SHAPE, "f4", external=[(str(target), 0, h5py.h5f.UNLIMITED)])


def virtual_dataset(file: h5py.File, target: Path) -> None:
    layout = h5py.VirtualLayout(SHAPE, "f4")
    layout[:] = h5py.VirtualSource(str(target), "features", SHAPE)
    file.create_virtual_dataset("features", layout)


def link_to_link(file: h5py.File, target: Path) -> None:
    file["elsewhere"] = h5py.ExternalLink(str(target), "/")
    file["features"] = h5py.SoftLink("/elsewhere/features")


ATTACKS: list[Callable[[h5py.File, Path], None]] = [external_link, external_storage, virtual_dataset, link_to_link]


def outcome(path: Path, layers: frozenset[Layer]) -> tuple[str, str] | int:
    script = f"from encoders.precomputed.features_child import main; main(frozenset({sorted(layers)!r}))"
    try:
        command = (sys.executable, "-P", "-c", script)
        with FeaturesProcess(path, ReaderLimits(deadline_s=60), command=command) as process:
            return len(process.rows())
    except (SlideError, ReaderDied) as error:
        return error.code, error.detail


@pytest.mark.parametrize("attack", ATTACKS)
def test_hdf5_that_names_another_file_is_refused_alike_whether_it_is_there_or_not(
    tmp_path: Path, attack: Callable[[h5py.File, Path], None]
) -> None:
    others = tmp_path / "others"
    others.mkdir()
    with h5py.File(others / "there", "w") as file:
        file["features"] = np.ones(SHAPE, "f4")
    for name in ("there", "absent"):
        with h5py.File(tmp_path / name, "w") as file:
            attack(file, others / name)
    layers = LAYERS["none" if attack is external_link else "all"]

    said = outcome(tmp_path / "there", layers)

    assert said == outcome(tmp_path / "absent", layers)
    assert said != 4
    assert isinstance(said, tuple)
    assert said[0] == "unusable_features"


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_good_features_are_read_under_every_layer(tmp_path: Path, layers: frozenset[Layer]) -> None:
    with h5py.File(tmp_path / "good.h5", "w") as file:
        file.create_dataset("features", data=np.ones(SHAPE, "f2"), compression="gzip")
    assert outcome(tmp_path / "good.h5", layers) == SHAPE[0]


def test_16_bit_tensors_are_converted_where_there_is_no_proc(tmp_path: Path) -> None:
    torch.save(torch.ones(SHAPE, dtype=torch.float16), tmp_path / "good.pt")

    assert outcome(tmp_path / "good.pt", ALL_LAYERS) == SHAPE[0]
