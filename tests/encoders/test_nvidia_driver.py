"""GPUs and driver as files and `nvidia-smi` tell them, without CUDA."""

from pathlib import Path

import pytest
from nvidia_machine import pretend_no_nvidia, pretend_nvidia

from encoders.nvidia_driver import driver_version, least_driver, too_old, visible_gpus


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [
        (None, ("NVIDIA H100", "NVIDIA H100")),
        ("1", ("NVIDIA H100",)),
        ("MIG-5c6f", ("NVIDIA GPU MIG-5c6f",)),
        ("", ()),
        ("-1", ()),
    ],
)
def test_gpus_are_those_that_cuda_is_allowed_to_see(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chosen: str | None, seen: tuple[str, ...]
) -> None:
    pretend_nvidia(monkeypatch, tmp_path, gpus=2)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)

    assert visible_gpus() == seen


def test_device_files_tell_of_a_gpu_where_nvidia_smi_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend_no_nvidia(monkeypatch, tmp_path)
    assert visible_gpus() == ()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert visible_gpus() == (), "a variable makes no GPU"

    for name in ("nvidia0", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert visible_gpus() == ("NVIDIA GPU 0",)


def test_an_nvidia_smi_that_fails_lists_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend_nvidia(monkeypatch, tmp_path)
    monkeypatch.setattr("encoders.nvidia_driver._DEVICES", tmp_path)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    (tmp_path / "nvidia-smi").chmod(0o755)

    assert visible_gpus() == ()
    assert driver_version() is None


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("580.65.06\n", "580.65.06"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\nGCC version: 12.2.0\n", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n", "570.86.15"),
    ],
)
def test_the_driver_says_its_version_in_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, version: str
) -> None:
    file = tmp_path / "version"
    file.write_text(text)
    monkeypatch.setattr("encoders.nvidia_driver._VERSION_FILES", (tmp_path / "none", file))

    assert driver_version() == version


def test_cuda_13_needs_driver_580() -> None:
    assert least_driver("13.0") == 580
    assert too_old("580.65.06", "13.0") is None
    assert too_old("575.57.08", "13.0") == "the NVIDIA driver is 575.57.08 and CUDA 13.0 needs 580 or newer"
    assert too_old("575.57.08", "12.8") is None
    assert too_old(None, "13.0") is None
    assert too_old("400.1", "99.0") is None
