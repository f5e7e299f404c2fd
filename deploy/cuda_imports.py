"""Imports that must work in an environment of the CUDA builds, also on a machine without a GPU.

Run by the Python of that environment: `python deploy/cuda_imports.py worker|vllm CUDA_MAJOR`. Prints a line for each
part; exit code 0 when all came in. Part of `make cuda-environment`, which puts a stand-in of the driver's library where
there is none: compiled code then loads, and every call of it says that there is no device.
"""

import importlib
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path

WORKER = (
    "torchvision",
    "timm",
    "encoders.pipeline",
    "encoders.tile_encoder.encode",
    "encoders.hierarchical.encode",
    "server.worker",
)
VLLM = ("flashinfer", "flashinfer.sampling", "vllm.entrypoints.openai.api_server", "vllm.v1.worker.gpu.model_runner")
PLUGIN = ("eyepiece_vllm.model", "eyepiece_vllm.answer_processors")
# Left beside the packages by the tools that built them; nobody imports it.
HARMLESS = {"build_backend.py"}
# Backends that do not come in without a GPU, or here at all, by what their error says.
EXCUSED = {
    "CUTLASS_MLA": "no NVIDIA driver",  # takes memory of the GPU when it is imported
    "ROCM_FLASHMLA_SPARSE_DSV4": "no NVIDIA driver",  # asks an AMD GPU
    "MINIMAX_M3_SPARSE": "torchvision",  # kept out, see vllm-overrides.txt
    "NO_ATTENTION": "no_attention",  # a name without a module in vLLM 0.32
}


def overwritten_files() -> str:
    """No file was installed by two distributions: whichever came last would have won."""
    owners: defaultdict[str, set[str]] = defaultdict(set)
    for distribution in distributions():
        for file in distribution.files or ():
            owners[str(file)].add(distribution.metadata["Name"])
    twice = [f"{file} of {' and '.join(sorted(names))}" for file, names in sorted(owners.items()) if len(names) > 1]
    twice = [line for line in twice if line.split()[0] not in HARMLESS]
    assert not twice, f"{len(twice)} files were installed twice: {', '.join(twice[:3])}"
    return f"{len(owners)} files"


def torch_is_built_for(cuda_major: str) -> str:
    """The build that the driver is checked for; a GPU that is not there is no error."""
    import torch

    assert (torch.version.cuda or "none").split(".")[0] == cuda_major, f"torch is built for CUDA {torch.version.cuda}"
    return f"{torch.__version__}, a GPU: {torch.cuda.is_available()}"


def vllm_on_an_h100() -> str:
    """vLLM chooses what it imports by the GPU: where there is none it is told of one."""
    import torch

    cuda = importlib.import_module("vllm.platforms.cuda")
    platforms = importlib.import_module("vllm.platforms")
    if torch.cuda.is_available():
        return f"no: it sees {platforms.current_platform.get_device_name()}"
    capability = importlib.import_module("vllm.platforms.interface").DeviceCapability(9, 0)
    answers = {
        "get_device_capability": capability,
        "get_device_name": "NVIDIA H100",
        "get_device_total_memory": 80 * 2**30,
        "num_compute_units": 132,
    }
    methods = {name: classmethod(lambda cls, device_id=0, answer=it: answer) for name, it in answers.items()}
    vars(platforms)["_current_platform"] = type("ToldOfAnH100", (cuda.NonNvmlCudaPlatform,), methods)()
    return "told of one"


def compiled_parts() -> str:
    """Every extension of vLLM loads: its symbols are those of the torch that is installed."""
    import torch

    folder = Path(str(importlib.import_module("vllm").__file__)).parent
    files = sorted(folder.rglob("*.so"))
    failed = []
    for file in files:
        try:
            torch.ops.load_library(str(file))  # type: ignore[no-untyped-call]
        except OSError as error:
            failed.append(str(error))
    assert files, "there are none"
    assert not failed, "; ".join(failed)
    return f"{len(files)} files"


def attention_backends() -> str:
    """Every attention backend that vLLM names comes in, but the excused."""
    registry = importlib.import_module("vllm.v1.attention.backends.registry")
    came, failed = [], []
    for backend in registry.AttentionBackendEnum:
        try:
            if backend.value:
                backend.get_class()
                came.append(backend.name)
        except Exception as error:  # noqa: BLE001 - one must not hide the others
            if EXCUSED.get(backend.name, "-") not in str(error):
                failed.append(f"{backend.name}: {error!r}")
    assert not failed, "; ".join(failed)
    assert {"FLASH_ATTN", "FLASHINFER", "TRITON_ATTN", "FLEX_ATTENTION"} <= set(came)
    return f"{len(came)}, all but {', '.join(sorted(set(EXCUSED) - set(came)))}"


def plugin_is_known() -> str:
    """vLLM finds the plugin's entry point and knows each of its architectures."""
    importlib.import_module("vllm.plugins").load_general_plugins()
    architectures: tuple[str, ...] = importlib.import_module("eyepiece_vllm").ARCHITECTURES
    unknown = set(architectures) - set(importlib.import_module("vllm").ModelRegistry.get_supported_archs())
    assert not unknown, f"vLLM does not know {', '.join(sorted(unknown))}"
    return ", ".join(architectures)


def imported(module: str) -> str:
    """The module, by name."""
    return str(getattr(importlib.import_module(module), "__version__", ""))


def parts(environment: str, cuda_major: str) -> list[tuple[str, Callable[[], str]]]:
    """What is tried, in order; each has a name."""
    first: list[tuple[str, Callable[[], str]]] = [
        ("no file of two packages", overwritten_files),
        (f"torch for CUDA {cuda_major}", lambda: torch_is_built_for(cuda_major)),
    ]
    modules = WORKER if environment == "worker" else (*VLLM, *PLUGIN)
    imports = [(f"import {module}", lambda module=module: imported(module)) for module in modules]
    if environment == "worker":
        return [*first, *imports]
    return [
        *first,
        ("vLLM on an H100", vllm_on_an_h100),
        ("vLLM's compiled parts", compiled_parts),
        *imports,
        ("vLLM's attention backends", attention_backends),
        ("the plugin in vLLM", plugin_is_known),
    ]


def main(environment: str, cuda_major: str) -> int:
    """Tries everything, whatever fails; exit code 0 or 1."""
    failures = 0
    for name, check in parts(environment, cuda_major):
        try:
            seen = check()
        except Exception:  # noqa: BLE001 - an import can fail in any way
            failures += 1
            print(f"  FAILED {name}\n{traceback.format_exc()}", flush=True)
        else:
            print(f"  ok     {name}{f': {seen}' if seen else ''}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
