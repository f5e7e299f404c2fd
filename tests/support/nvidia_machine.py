"""A machine with an NVIDIA GPU, or what looks like one, for tests on machines without."""

import os
from pathlib import Path

import pytest


def pretend_nvidia(monkeypatch: pytest.MonkeyPatch, folder: Path, *, driver: str = "580.65.06", gpus: int = 1) -> None:
    """Puts an `nvidia-smi` first in PATH that lists so many NVIDIA H100 under that driver."""
    program = folder / "nvidia-smi"
    lines = "".join(
        f'case "$1" in *name*|-L) echo "NVIDIA H100";; *driver_version*) echo {driver};; esac\n' for _ in range(gpus)
    )
    program.write_text(f"#!/bin/sh\n{lines}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("encoders.nvidia_driver._VERSION_FILES", ())


def pretend_no_nvidia(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Neither `nvidia-smi` nor device files."""
    monkeypatch.setattr("encoders.nvidia_driver._DEVICES", folder)
    monkeypatch.setattr("encoders.nvidia_driver._VERSION_FILES", ())
    monkeypatch.setattr("encoders.nvidia_driver.shutil.which", lambda name: None)
