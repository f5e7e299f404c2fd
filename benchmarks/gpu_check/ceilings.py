"""The machine's ceilings: products of large matrices by dtype, memory, copies. No limits, only numbers.

Shares of other checks are of these numbers, measured on the same card on the same day, not of a data sheet.
"""

import shutil
import subprocess

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import ScalingType

from benchmarks.gpu_check.results import Finding, Number
from benchmarks.gpu_check.setting import Setting
from benchmarks.gpu_check.timing import seconds_per_call, timed_s
from benchmarks.matrix_ceiling import Products, square

# A product of this side fills every GPU; the small one ends on a CPU.
_SIDE, _SMALL_SIDE = 8192, 256
_BYTES, _SMALL_BYTES = 1 << 30, 1 << 22
_LAUNCHES = 1000


def check(setting: Setting) -> Finding:
    """Matrix products in float32, TF32, 16 and 8 bits; memory; copies pinned and not; launches."""
    notes: list[str] = []
    numbers = [_products(setting, dtype) for dtype in (torch.float32, torch.float16, torch.bfloat16)]
    if setting.on_gpu:
        numbers.append(_tf32_products(setting))
    try:
        numbers.append(_float8_products(setting))
    except (RuntimeError, NotImplementedError) as error:
        notes.append(f"no 8-bit products here: {str(error).splitlines()[0]}")
    numbers += [_memory(setting), _launch(setting)]
    if setting.on_gpu:
        numbers += _copies(setting)
    return Finding(numbers=tuple(numbers), facts=_device_facts(setting), notes=tuple(notes))


def _products(setting: Setting, dtype: torch.dtype) -> Number:
    side = _SMALL_SIDE if setting.small else _SIDE
    products = Products(square(side, 1), dtype, torch.device(setting.device))
    rate = products.flop / seconds_per_call(products.run, setting) / 1e12
    return Number(name=f"matrix products in {str(dtype).removeprefix('torch.')}", value=rate, unit="TFLOP/s")


def _tf32_products(setting: Setting) -> Number:
    torch.set_float32_matmul_precision("high")
    number = _products(setting, torch.float32)
    torch.set_float32_matmul_precision("highest")
    return number.model_copy(update={"name": "matrix products in TF32"})


@torch.inference_mode()
def _float8_products(setting: Setting) -> Number:
    """With one scale per row of either matrix, as encoders.tile_encoder.float8_linear multiplies."""
    side = _SMALL_SIDE if setting.small else _SIDE
    left, right = (torch.randn(side, side, device=setting.device).to(torch.float8_e4m3fn) for _ in range(2))
    scale = torch.ones(side, 1, device=setting.device)

    def multiply() -> Tensor:
        return functional.scaled_mm(
            left,
            right.t(),
            scale,
            ScalingType.RowWise,
            scale.t(),
            ScalingType.RowWise,
            output_dtype=torch.bfloat16,
            use_fast_accum=setting.on_gpu,
        )

    rate = 2 * side**3 / seconds_per_call(multiply, setting) / 1e12
    return Number(name="matrix products in float8", value=rate, unit="TFLOP/s")


def _memory(setting: Setting) -> Number:
    """A copy within the device reads and writes every byte."""
    source = torch.zeros(_bytes(setting), dtype=torch.uint8, device=setting.device)
    target = torch.empty_like(source)
    seconds = seconds_per_call(lambda: target.copy_(source), setting)
    return Number(name="memory", value=2 * len(source) / seconds / 1e9, unit="GB/s")


def _launch(setting: Setting) -> Number:
    """Where nothing is to be computed, this is the time of an operation: bounds what is not compiled."""
    one = torch.zeros(1, device=setting.device)

    def launches() -> None:
        for _ in range(_LAUNCHES):
            one.add_(1)

    launches()
    return Number(name="one small operation", value=timed_s(launches, setting) / _LAUNCHES * 1e6, unit="µs")


def _copies(setting: Setting) -> list[Number]:
    size = _bytes(setting)
    on_device = torch.empty(size, dtype=torch.uint8, device=setting.device)
    pageable = torch.zeros(size, dtype=torch.uint8)
    pinned = torch.zeros(size, dtype=torch.uint8, pin_memory=True)
    copies = {
        "host to device, pinned": lambda: on_device.copy_(pinned, non_blocking=True),
        "host to device, pageable": lambda: on_device.copy_(pageable),
        "device to host, pinned": lambda: pinned.copy_(on_device, non_blocking=True),
    }
    return [
        Number(name=name, value=size / seconds_per_call(copy, setting) / 1e9, unit="GB/s")
        for name, copy in copies.items()
    ]


def _bytes(setting: Setting) -> int:
    return _SMALL_BYTES if setting.small else _BYTES


def _device_facts(setting: Setting) -> dict[str, str]:
    if not setting.on_gpu:
        return {"threads": str(torch.get_num_threads())}
    properties = torch.cuda.get_device_properties(setting.device)
    return {
        "capability": f"{properties.major}.{properties.minor}",
        "memory": f"{properties.total_memory / 1e9:.1f} GB",
        "multiprocessors": str(properties.multi_processor_count),
        "driver, power limit, highest clock": _from_nvidia_smi(setting),
    }


def _from_nvidia_smi(setting: Setting) -> str:
    """What torch does not say; the card is asked for by its UUID, as CUDA_VISIBLE_DEVICES changes its number."""
    if shutil.which("nvidia-smi") is None:
        return "unknown: there is no nvidia-smi"
    uuid = f"GPU-{torch.cuda.get_device_properties(setting.device).uuid}"
    fields = "driver_version,power.limit,clocks.max.sm"
    command = ["nvidia-smi", f"--id={uuid}", f"--query-gpu={fields}", "--format=csv,noheader"]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return asked.stdout.strip() if asked.returncode == 0 else "unknown: nvidia-smi gave no answer"
