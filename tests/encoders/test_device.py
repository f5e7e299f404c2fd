"""A GPU that is here and cannot be used stops a worker, with the reason; the CPU is taken where there is none."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from nvidia_machine import pretend_no_nvidia, pretend_nvidia

from encoders import device
from encoders.device import choose_device, limit_memory
from model_store.errors import ModelError

GB = 10**9


def refusal(name: str) -> str:
    with pytest.raises(ModelError) as refused:
        choose_device(name)
    assert refused.value.detail.count(". ") == 1, "two sentences: what is wrong, what to do"
    return refused.value.detail


@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:1"])
def test_a_gpu_beside_a_cpu_build_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    pretend_nvidia(monkeypatch, tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", None)

    said = refusal(name)

    assert "NVIDIA H100 cannot be used by a CPU build of torch" in said
    assert "EYEPIECE_DEVICE=cpu" in said
    assert choose_device("cpu").type == "cpu"


def test_a_driver_that_is_too_old_is_named_with_the_one_that_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend_nvidia(monkeypatch, tmp_path, driver="550.54.15")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", "13.0")

    assert "the NVIDIA driver is 550.54.15 and CUDA 13.0 needs 580 or newer" in refusal("auto")


def test_otherwise_the_reason_is_cudas_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail() -> None:
        raise RuntimeError(
            "CUDA unknown error - this may be due to an incorrectly set up environment. Try again.\nMore"
        )

    pretend_nvidia(monkeypatch, tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setattr("torch.cuda.init", fail)

    said = refusal("auto")
    assert "CUDA unknown error - this may be due to an incorrectly set up environment. Make" in said


def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend_no_nvidia(monkeypatch, tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    assert choose_device("auto").type == "cpu"
    with pytest.raises(ModelError, match="no CUDA device"):
        choose_device("cuda:0")


def test_a_gpu_that_works_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)

    assert str(choose_device("auto")) == "cuda"
    assert str(choose_device("cuda:1")) == "cuda:1"
    assert str(choose_device("cpu")) == "cpu"


@pytest.mark.parametrize("works", [True, False])
def test_a_name_that_no_device_has_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, works: bool) -> None:
    pretend_no_nvidia(monkeypatch, tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: works)

    assert "'gpu 1' is no device" in refusal("gpu 1")


def test_the_module_answers_for_other_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend_no_nvidia(monkeypatch, tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    codes = []
    for name in ("auto", "cuda"):
        monkeypatch.setattr("sys.argv", ["encoders.device", name])
        codes.append(device.main())

    assert codes == [0, 2]
    assert capsys.readouterr().out.startswith("cpu\nThis machine or this torch has no CUDA device")


class Memory:
    """A GPU's memory behind torch's own functions, which check what they are given; and the limits that were set."""

    def __init__(self, free_gb: float, total_gb: float) -> None:
        self.free, self.total = int(free_gb * GB), int(total_gb * GB)
        self.limits: list[tuple[float, int]] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        runtime = SimpleNamespace(cudaMemGetInfo=lambda index: (self.free, self.total))
        monkeypatch.setattr("torch.cuda.cudart", lambda: runtime)
        monkeypatch.setattr("torch.cuda.memory._lazy_init", lambda: None)
        monkeypatch.setattr(
            torch._C,
            "_cuda_setMemoryFraction",
            lambda share, index: self.limits.append((share, index)),
            raising=False,
        )


@pytest.mark.parametrize(("name", "index"), [("cuda", 0), ("cuda:1", 1)])
def test_a_worker_is_kept_to_its_share(monkeypatch: pytest.MonkeyPatch, name: str, index: int) -> None:
    memory = Memory(free_gb=5.9, total_gb=24)
    memory.install(monkeypatch)

    limit_memory(torch.device(name), 0.2)
    limit_memory(torch.device(name), 0.0)
    limit_memory(torch.device("cpu"), 0.2)

    assert memory.limits == [(0.2, index)]


def test_a_share_that_others_hold_is_refused_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(free_gb=2, total_gb=24)
    memory.install(monkeypatch)

    with pytest.raises(ModelError, match=r"may take 4.8 GB of the GPU's 24.0 GB and only 2.0 GB are free"):
        limit_memory(torch.device("cuda"), 0.2)
    assert memory.limits == []
