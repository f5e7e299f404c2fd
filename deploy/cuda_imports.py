"""What must be importable in an environment of the CUDA builds, also on a machine without a GPU.

Run by the Python of that environment: `python deploy/cuda_imports.py worker|vllm CUDA_MAJOR`. Prints a line for each
part; exit code 0 when all came in. Part of `make cuda-environment`.
"""

import importlib
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import distributions

WORKER = ("torchvision", "timm", "encoders.pipeline", "encoders.tile_encoder.encode", "server.worker")
VLLM = ("flashinfer", "flashinfer.sampling", "vllm", "vllm.entrypoints.openai.api_server", "vllm._C_stable_libtorch")
PLUGIN = ("eyepiece_vllm", "eyepiece_vllm.model", "eyepiece_vllm.no_repeat_ngram")


def overwritten_files() -> None:
    """No file was installed by two distributions: whichever came last would have won."""
    owners: defaultdict[str, set[str]] = defaultdict(set)
    for distribution in distributions():
        for file in distribution.files or ():
            owners[str(file)].add(distribution.metadata["Name"])
    twice = [f"{file} of {' and '.join(sorted(names))}" for file, names in sorted(owners.items()) if len(names) > 1]
    assert not twice, f"{len(twice)} files were installed twice: {', '.join(twice[:3])}"


def torch_is_built_for(cuda_major: str) -> None:
    """The build that the driver is checked for; a GPU that is not there is no error."""
    import torch

    assert (torch.version.cuda or "none").split(".")[0] == cuda_major, f"torch is built for CUDA {torch.version.cuda}"
    torch.cuda.is_available()


def attention_backends() -> None:
    """Every attention backend of vLLM that is for NVIDIA's GPUs, the ones that are chosen by a model included."""
    registry = importlib.import_module("vllm.v1.attention.backends.registry")
    failed = []
    for backend in registry.AttentionBackendEnum:
        try:
            if backend.value:
                backend.get_class()
        except Exception as error:  # noqa: BLE001 - one must not hide the others
            failed.append(f"{backend.name}: {error!r}")
    assert not failed, "; ".join(failed)


def plugin_is_known() -> None:
    """vLLM finds the plugin and knows its architecture."""
    plugin = importlib.import_module("eyepiece_vllm")
    plugin.register()
    assert plugin.ARCHITECTURE in importlib.import_module("vllm").ModelRegistry.get_supported_archs()


def parts(environment: str, cuda_major: str) -> list[tuple[str, Callable[[], object]]]:
    """What is tried, in order; each has a name."""
    modules = WORKER if environment == "worker" else (*VLLM, *PLUGIN)
    checks: list[tuple[str, Callable[[], object]]] = [
        ("no file of two packages", overwritten_files),
        (f"torch for CUDA {cuda_major}", lambda: torch_is_built_for(cuda_major)),
        *((module, lambda module=module: importlib.import_module(module)) for module in modules),
    ]
    if environment == "vllm":
        checks += [("attention backends", attention_backends), ("plugin is known", plugin_is_known)]
    return checks


def main(environment: str, cuda_major: str) -> int:
    """Tries everything, whatever fails; exit code 0 or 1."""
    failures = 0
    for name, check in parts(environment, cuda_major):
        try:
            check()
        except Exception:  # noqa: BLE001 - an import can fail in any way
            failures += 1
            print(f"  FAILED {name}\n{traceback.format_exc()}", flush=True)
        else:
            print(f"  ok     {name}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
