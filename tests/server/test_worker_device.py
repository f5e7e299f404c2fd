"""A worker and CUDA: which GPU it sees, and when."""

import os
from pathlib import Path

import pytest
import torch

from model_store.installed import InstalledModel
from server import worker
from server.settings import Settings


class Loading(Exception):
    """As far as the test goes."""


def test_a_worker_sees_its_own_gpu_before_anything_asks_cuda(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_model: InstalledModel
) -> None:
    told: list[str | None] = []

    def is_available() -> bool:
        told.append(os.environ.get("CUDA_VISIBLE_DEVICES"))
        return True

    def load(_: InstalledModel, device: str, __: str) -> None:
        told.append(device)
        raise Loading

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setattr(worker, "load_encoders", load)
    monkeypatch.setattr(worker, "open_served_models", lambda _: (demo_model,))
    monkeypatch.setattr(worker, "configure_logs", lambda _: None)
    monkeypatch.setattr(worker, "lower_priority", lambda *_: None)

    with pytest.raises(Loading):
        worker.run(Settings(data_dir=tmp_path, device="cuda:1"))

    assert told == ["5", "cuda"], "the context would be on the first GPU otherwise"
