"""That a process which computes sees no other GPU than its own.

A process that asks CUDA for anything on its second GPU may well make a context on the first: half a gigabyte that
belongs to somebody else. And an instance of a GPU that was divided (MIG) has no number. So the process is shown one GPU
before anybody asks, and calls it "cuda".
"""

import os
import re
from collections.abc import MutableMapping
from typing import Final

from model_store.errors import ModelError

_VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
# As `nvidia-smi -L` lists them.
_UUID: Final = re.compile(r"(GPU|MIG)-[0-9A-Za-z/-]+")
_NUMBERED: Final = re.compile(r"cuda:(\d+)")


def see_one_gpu(device: str, environment: MutableMapping[str, str] = os.environ) -> str:
    """Hides all GPUs but the named one from this process and its children; the device's name from now on.

    To be called before anything asks CUDA. `device` is as in `encoders.device.choose_device`, or the UUID of a GPU or
    MIG instance; a number counts what CUDA_VISIBLE_DEVICES leaves. Raises ModelError when that is fewer, or for several
    devices.
    """
    if "," in device:
        raise ModelError(
            "EYEPIECE_DEVICE names several devices, which `eyepiece up` gives to its workers, one each; name one here."
        )
    numbered = _NUMBERED.fullmatch(device)
    if _UUID.fullmatch(device):
        environment[_VISIBLE] = device
        return "cuda"
    if numbered or device in ("auto", "cuda"):
        environment[_VISIBLE] = _visible(int(numbered[1]) if numbered else 0, environment)
        return "cuda" if numbered else device
    return device


def _visible(number: int, environment: MutableMapping[str, str]) -> str:
    """The name that CUDA has for the GPU of this number, among those that the process may see."""
    left = environment.get(_VISIBLE)
    if left is None:
        return str(number)
    names = [name.strip() for name in left.split(",") if name.strip()]
    if not names:
        return ""  # all are hidden on purpose
    if number >= len(names):
        raise ModelError(
            f"EYEPIECE_DEVICE is cuda:{number}, and {_VISIBLE} leaves {len(names)} to count: correct one of them."
        )
    return names[number]
