"""The GPU of each process under `eyepiece up`, and how much of its memory it may take.

vLLM takes its share at once and keeps it; a worker grows with its slides up to a limit. Each process also has a CUDA
context of about half a gigabyte, and a worker's is not in its share: shares of one GPU add up to `TOGETHER` at most.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from encoders.nvidia_driver import number_of
from server.commands.outcome import CommandError, ExitCode
from server.settings import Settings

TOGETHER = 0.95
LLM_ALONE = 0.9
LLM_BESIDE_WORKERS = 0.75
_ROUNDING = 1e-6


@dataclass(frozen=True)
class GpuShares:
    """`devices` is EYEPIECE_DEVICE of each worker; `llm` and `worker` are shares of a GPU, 0 = no limit.

    `is_shared`: some worker computes on a GPU of vLLM's.
    """

    devices: tuple[str, ...]
    llm: float
    worker: float
    is_shared: bool


def plan_shares(settings: Settings, workers: int, gpus: int, llm_gpus: int) -> GpuShares:
    """The plan for `gpus` visible ones, of which vLLM takes the first `llm_gpus` (0: it runs elsewhere or on the CPU).

    Several devices, with commas, are one for each worker. Workers whose device is `auto` get the other GPUs in turn;
    only where there is no other do they share vLLM's.

    Raises:
        CommandError: what the settings ask for does not fit on one GPU.
    """
    devices = _devices(settings.device, workers, gpus, llm_gpus)
    places = Counter(place for device in devices if (place := _gpu_of(device, gpus)) is not None)
    beside = max((places[index] for index in range(llm_gpus)), default=0)
    crowd = max(places.values(), default=0)
    llm, worker = settings.llm_gpu_memory, settings.worker_gpu_memory
    if not beside:
        if crowd > 1:
            worker = worker or TOGETHER / crowd
        _refuse_too_much(crowd, worker, llm=0.0)
        return GpuShares(devices, llm or LLM_ALONE, worker, is_shared=False)
    llm = llm or (TOGETHER - beside * worker if worker else LLM_BESIDE_WORKERS)
    worker = worker or (TOGETHER - llm) / beside
    _refuse_too_much(crowd, worker, llm)
    return GpuShares(devices, round(llm, 4), round(worker, 4), is_shared=True)


def _devices(device: str, workers: int, gpus: int, llm_gpus: int) -> tuple[str, ...]:
    named = tuple(name.strip() for name in device.split(","))
    if len(named) > 1:
        if len(named) != workers or not all(named):
            raise CommandError(
                f"EYEPIECE_DEVICE names {len(named)} devices, and {workers} encoder workers would start: name one for "
                "each, or one for all, or start another number (--workers).",
                ExitCode.USAGE,
            )
        return named
    if device != "auto" or gpus < 2:
        return (device,) * workers
    places: Sequence[int] = range(llm_gpus, gpus) or range(gpus)
    return tuple(f"cuda:{places[number % len(places)]}" for number in range(workers))


def _gpu_of(device: str, gpus: int) -> int | str | None:
    """Its number; its UUID where that has none, as an instance of a divided GPU (MIG); None on the CPU."""
    if device.startswith("cpu") or not gpus:
        return None
    if device.startswith(("GPU-", "MIG-")):
        number = number_of(device)
        return device if number is None else number
    last = device.rpartition(":")[2]
    return int(last) if last.isdigit() else 0


def _refuse_too_much(workers: int, worker: float, llm: float) -> None:
    together = workers * worker + llm
    if together > TOGETHER + _ROUNDING or (llm and min(llm, worker) < _ROUNDING):
        raise CommandError(
            f"Of one GPU's memory vLLM would get {max(llm, 0):.2f} and {workers} encoder workers {max(worker, 0):.2f} "
            f"each, where all together may have {TOGETHER}. Lower EYEPIECE_LLM_GPU_MEMORY or "
            "EYEPIECE_WORKER_GPU_MEMORY, or start fewer workers.",
            ExitCode.USAGE,
        )
