"""What must be importable in an environment of the CUDA builds, also on a machine without a GPU.

Run by the Python of that environment: `python deploy/cuda_imports.py worker|vllm`. A line for each finding; exit code 0
when nothing failed. Part of `make cuda-environment`.
"""

from collections import defaultdict
from importlib.metadata import distributions
from pathlib import PurePosixPath

# Of vLLM's attention backends these are for other hardware, or for packages that are on no index.
OTHER_HARDWARE = ("ROCM", "XPU", "CPU", "AMX", "TRITON_FLASH_ATTN_ROCM")


def overwritten_files() -> list[str]:
    """Files that two distributions have installed: whichever came last has won."""
    owners: defaultdict[PurePosixPath, set[str]] = defaultdict(set)
    for distribution in distributions():
        for file in distribution.files or ():
            if file.suffix != ".pyc" and ".." not in file.parts:
                owners[PurePosixPath(file)].add(distribution.metadata["Name"])
    return [f"{path}: {', '.join(sorted(names))}" for path, names in sorted(owners.items()) if len(names) > 1]
