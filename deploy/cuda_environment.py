"""`make cuda-environment`: installs the CUDA environments from their locks, imports what is in them, removes them.

Needs a C compiler, but no GPU and no driver; works in a folder of its own, with its own downloads (UV_CACHE_DIR keeps
them elsewhere), one environment after the other, and removes it at the end. `--keep` does not.
"""

import argparse
import ctypes
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from environments import LOCKS, ROOT
from pip_configuration import read_pip_configuration, uv_environment

NEEDED_GB = 14.0
NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
CUDA_MAJOR = "13"  # what LEAST_DRIVER in environments.py belongs to
UV = ROOT / ".venv" / "bin" / "uv"
# Environment → what of ours is installed into it.
OURS = {"worker": ".", "vllm": "./vllm_plugin"}


def install(name: str, folder: Path, variables: Mapping[str, str]) -> Path:
    """The environment as an image has it: files by hash, nothing resolved; its Python."""
    python = folder / name / "bin" / "python"
    install = [UV, "pip", "install", "--quiet", "--no-deps", "--python", python]
    for command in (
        [UV, "venv", "--quiet", "--clear", "--python", sys.executable, folder / name],
        [*install, "--require-hashes", "--requirements", LOCKS / f"{name}-cuda.txt"],
        [*install, "--build-constraints", LOCKS / "build.txt", OURS[name]],
    ):
        subprocess.run([str(part) for part in command], check=True, cwd=ROOT, env={**os.environ, **variables})
    return python


def driver_stand_in(folder: Path, packages: Path) -> Path:
    """A folder with a `libcuda.so.1` for machines without a driver: each function says that there is no device.

    It has every name of the driver's functions that stands in a compiled file of `packages`, which links to them.
    """
    names = {b"cuInit"}
    for file in packages.rglob("*.so"):
        names.update(re.findall(rb"\0(cu[A-Z]\w+)(?=\0)", file.read_bytes()))
    source = "".join(f"int {name.decode()}(void) {{ return {NO_DEVICE}; }}\n" for name in sorted(names))
    folder.mkdir(exist_ok=True)
    compile_it = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-Wl,-soname,libcuda.so.1", "-o", folder / "libcuda.so.1"]
    subprocess.run([str(part) for part in compile_it], input=source, text=True, check=True)
    return folder


def has_driver() -> bool:
    """Whether the driver's library is installed."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def size_gb(folder: Path) -> float:
    """Bytes of all files, each counted once."""
    seen = {(status.st_dev, status.st_ino): status.st_size for file in folder.rglob("*") for status in [file.lstat()]}
    return sum(seen.values()) / 1e9


def main(arguments: Sequence[str]) -> int:
    """Exit code: 0 all was imported, 1 something failed or could not be installed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, default=ROOT / ".venv-cuda", help="made for it, and removed")
    parser.add_argument("--only", choices=list(OURS), help="this environment alone")
    parser.add_argument("--keep", action="store_true", help="do not remove the folder")
    options = parser.parse_args(arguments)
    folder: Path = options.folder.absolute()
    if folder.exists() and not options.keep:
        sys.stderr.write(
            f"{folder} is there already and would be removed at the end: remove it, or name another one.\n"
        )
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if (free_gb := shutil.disk_usage(folder).free / 1e9) < NEEDED_GB:
            sys.stderr.write(f"{NEEDED_GB:.0f} GB of disk are needed and {free_gb:.0f} GB are free: make room.\n")
            return 1
        places = uv_environment(read_pip_configuration(Path(sys.executable)))
        variables = {"UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(folder / "downloads")), **places}
        variables["UV_FIND_LINKS"] = ""  # a CPU build of torch there would be taken for the locked one, and refused
        return max([check(name, folder, variables) for name in OURS if options.only in (None, name)])
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def check(name: str, folder: Path, variables: Mapping[str, str]) -> int:
    """Installs and imports one environment; says how long and how large."""
    started = time.monotonic()
    quiet = {"PYTHONSAFEPATH": "1", "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    try:
        python = install(name, folder, variables)
        if name == "vllm" and not has_driver():
            (packages,) = (folder / name).glob("lib/python3.*/site-packages")
            quiet["LD_LIBRARY_PATH"] = str(driver_stand_in(folder / "driver", packages / "vllm"))
            quiet["CUDA_VISIBLE_DEVICES"] = ""  # or vLLM takes a Triton without an active driver for none
    except (OSError, subprocess.CalledProcessError):
        sys.stderr.write(f"{name} could not be installed, see the lines above.\n")
        return 1
    print(f"{name}: installed in {time.monotonic() - started:.0f} s, {size_gb(folder / name):.1f} GB", flush=True)
    command = [str(python), str(ROOT / "deploy" / "cuda_imports.py"), name, CUDA_MAJOR]
    started = time.monotonic()
    code = subprocess.run(command, check=False, cwd=folder, env={**os.environ, **quiet}).returncode
    print(f"{name}: imported in {time.monotonic() - started:.0f} s", flush=True)
    return 1 if code else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
