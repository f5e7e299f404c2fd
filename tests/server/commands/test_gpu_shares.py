"""Shares of one GPU's memory add up, whoever sets which; workers go where vLLM is not, while there is such a GPU."""

from typing import Any

import pytest

from server.commands.gpu_shares import TOGETHER, GpuShares, plan_shares
from server.commands.outcome import CommandError, ExitCode
from server.settings import Settings


def plan(workers: int = 1, gpus: int = 1, llm_gpus: int = 1, **settings: Any) -> GpuShares:
    return plan_shares(Settings(**settings), workers, gpus, llm_gpus)


def test_worker_and_vllm_on_one_gpu_share_it() -> None:
    assert plan() == GpuShares(("auto",), llm=0.75, worker=0.2, is_shared=True)


def test_a_gpu_of_its_own_is_vllms_to_nine_tenths_and_a_workers_without_limit() -> None:
    for alone in (
        plan(device="cpu"),
        plan(gpus=2),
        plan(gpus=2, device="cuda:1"),
        plan(llm_gpus=0),
        plan(gpus=0, llm_gpus=0),
    ):
        assert (alone.llm, alone.worker, alone.is_shared) == (0.9, 0.0, False)


@pytest.mark.parametrize(
    ("workers", "gpus", "llm_gpus", "devices"),
    [
        (1, 1, 1, ("auto",)),
        (2, 3, 1, ("cuda:1", "cuda:2")),
        (3, 3, 1, ("cuda:1", "cuda:2", "cuda:1")),
        (2, 2, 0, ("cuda:0", "cuda:1")),
        (2, 4, 2, ("cuda:2", "cuda:3")),
        (2, 2, 2, ("cuda:0", "cuda:1")),
        (2, 0, 0, ("auto", "auto")),
    ],
)
def test_workers_get_a_gpu_each_and_vllms_last(
    workers: int, gpus: int, llm_gpus: int, devices: tuple[str, ...]
) -> None:
    assert plan(workers, gpus, llm_gpus).devices == devices
    assert plan(workers, gpus, llm_gpus).is_shared == (gpus == llm_gpus != 0)


def test_a_device_that_was_named_is_every_workers() -> None:
    assert plan(2, gpus=4, device="cuda:0") == GpuShares(("cuda:0", "cuda:0"), llm=0.75, worker=0.1, is_shared=True)


def test_several_devices_are_one_for_each_worker() -> None:
    named = plan(2, gpus=4, device="cuda:1, cuda:3")
    assert (named.devices, named.is_shared, named.worker) == (("cuda:1", "cuda:3"), False, 0.0)
    assert plan(2, gpus=4, device="cuda:0,cuda:3").is_shared
    assert plan(2, gpus=1, device="cpu,cuda:0").worker == 0.2

    for device in ("cuda:0,cuda:1", "cuda:0,,cuda:1"):
        with pytest.raises(CommandError, match="name one for each") as refused:
            plan(4, gpus=4, device=device)
        assert refused.value.exit_code == ExitCode.USAGE


def test_a_uuid_is_the_gpu_that_has_it_and_an_instance_of_one_is_a_place_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("encoders.nvidia_driver._ask", lambda field: ("GPU-a", "GPU-b", "GPU-c"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert plan(gpus=3, device="GPU-a").is_shared
    assert not plan(gpus=3, device="GPU-b").is_shared
    assert plan(2, gpus=3, device="GPU-b,cuda:1").worker == TOGETHER / 2, "one GPU by two names"
    assert plan(2, gpus=3, device="MIG-x,MIG-y") == GpuShares(("MIG-x", "MIG-y"), 0.9, 0.0, is_shared=False)

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, MIG-x")
    assert plan(gpus=2, device="GPU-c").is_shared
    assert not plan(gpus=2, device="MIG-x").is_shared


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("llm", [0.0, 0.1, 0.6, 0.9])
@pytest.mark.parametrize("worker", [0.0, 0.05, 0.3])
def test_whatever_is_set_either_fits_or_is_refused(workers: int, llm: float, worker: float) -> None:
    if round(llm + workers * worker, 6) > TOGETHER:
        with pytest.raises(CommandError) as refused:
            plan(workers, llm_gpu_memory=llm, worker_gpu_memory=worker)
        assert refused.value.exit_code == ExitCode.USAGE
        return
    found = plan(workers, llm_gpu_memory=llm, worker_gpu_memory=worker)
    assert found.llm > 0 < found.worker
    assert found.llm + workers * found.worker <= TOGETHER + 0.001
    assert found.llm == llm or not llm
    assert found.worker == worker or not worker


def test_what_does_not_fit_is_named_with_its_settings() -> None:
    with pytest.raises(CommandError, match=r"vLLM would get 0.80 and 2 encoder workers 0.20 each") as refused:
        plan(2, llm_gpu_memory=0.8, worker_gpu_memory=0.2)

    assert "EYEPIECE_LLM_GPU_MEMORY or EYEPIECE_WORKER_GPU_MEMORY" in str(refused.value)
    with pytest.raises(CommandError, match=r"vLLM would get 0.95 and 1 encoder workers 0.00 each"):
        plan(llm_gpu_memory=0.95)


def test_workers_that_crowd_a_gpu_without_vllm_share_it_too() -> None:
    crowded = plan(4, gpus=3)
    assert (crowded.worker, crowded.llm) == (TOGETHER / 2, 0.9)
    with pytest.raises(CommandError):
        plan(4, gpus=3, worker_gpu_memory=0.5)
