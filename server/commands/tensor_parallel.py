"""One language model on several devices: whether it can be split so, and which CPUs each part gets.

vLLM splits every matrix of the layers by attention heads and by columns; the projector is whole on each device.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from encoders.nvidia_driver import visible_gpus
from model_store.errors import ModelError
from model_store.installed import InstalledModel
from server.commands.outcome import CommandError, ExitCode

SETTING = "EYEPIECE_TENSOR_PARALLEL_SIZE"


def refuse_size(model: InstalledModel, size: int, builds: str) -> None:
    """Refuses, before vLLM starts, a number of devices that the model or the machine has no use for.

    Raises:
        CommandError: the text says what does not divide.
        ModelError: the model's config cannot be read.
    """
    if size == 1:
        return
    config = _served_config(model)
    llama: Mapping[str, Any] = config["text_config"]
    heads, shared = llama["num_attention_heads"], llama["num_key_value_heads"]
    if heads % size:
        divisors = [str(number) for number in range(1, heads + 1) if heads % number == 0]
        raise CommandError(
            f"{SETTING} is {size}, and the model's {heads} attention heads cannot be shared out evenly: choose one of "
            f"{', '.join(divisors)}.",
            ExitCode.USAGE,
        )
    # Several devices may hold the same key and value head, but none a part of one.
    uneven = shared % size and size % shared
    if uneven or llama["intermediate_size"] % size:
        what = f"{shared} key and value heads" if uneven else f"{llama['intermediate_size']} inner columns"
        raise CommandError(
            f"{SETTING} is {size}, and the model's {what} cannot be shared out evenly: choose a smaller one.",
            ExitCode.USAGE,
        )
    group = config.get("quantization_config", {}).get("group_size", -1)
    if group > 0 and any(llama[width] // size % group for width in ("hidden_size", "intermediate_size")):
        raise CommandError(
            f"{SETTING} is {size}, which cuts through this model's quantised groups of {group}: choose a smaller one, "
            "or convert the model with --quantize fp8.",
            ExitCode.USAGE,
        )
    if builds == "cuda" and size > (visible := len(visible_gpus())):
        raise CommandError(
            f"{SETTING} is {size}, and vLLM can use {visible} GPUs here: choose a smaller one, or look at "
            "CUDA_VISIBLE_DEVICES and `nvidia-smi`.",
            ExitCode.USAGE,
        )


def own_cpus() -> list[int]:
    """The CPUs that this process may use, by their numbers."""
    try:
        return sorted(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return list(range(os.cpu_count() or 1))


def cpu_binding(size: int, cpus: Sequence[int], base: Mapping[str, str]) -> dict[str, str]:
    """What makes vLLM on a CPU give each of `size` parts its own CPUs; nothing for one part, or where somebody said it.

    vLLM's own choice is a memory node for each, and it ends at its start where there are fewer.
    """
    name = "VLLM_CPU_OMP_THREADS_BIND"
    if size == 1 or name in base:
        return {}
    if len(cpus) < size:
        return {name: "nobind", "OMP_NUM_THREADS": "1"}
    each = len(cpus) // size
    parts = [sorted(cpus)[part * each : (part + 1) * each] for part in range(size)]
    return {name: "|".join(",".join(map(str, part)) for part in parts)}


def _served_config(model: InstalledModel) -> dict[str, Any]:
    try:
        found = json.loads((model.llm_folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError("The model's llm/config.json cannot be read; install the model again.") from error
    return dict(found)
