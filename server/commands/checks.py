"""Checks of the machine and the installation: `doctor` shows all, `up` refuses on those that would stop it.

Each check returns a `Finding`: a state, what was seen, and what to do about it. None changes anything.
"""

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from encoders.nvidia_driver import driver_version, visible_gpus
from encoders.sandbox.probe import describe_layers, is_confined, layers_in_force
from model_store.errors import ModelError
from model_store.installed import open_model, verify_digests
from model_store.packaged_models import packaged_models
from server.commands.data_folder import folder_problem, holder_of, private_folders
from server.commands.environments import (
    INSTALL_LIBNUMA,
    MAKE_ENVIRONMENTS,
    VLLM_VERSION,
    missing_system_library,
    pinned_versions,
    read_vllm_environment,
    vllm_python,
)
from server.commands.gpu import unusable_by_encoders, unusable_by_vllm
from server.machine.addresses import bind
from server.machine.redis_server import NoServer, answers, choose_server
from server.settings import Settings
from server.storage.private_files import open_to_others

OLDEST_OPENSLIDE = (4, 0, 1)  # below: CVE-2026-48977, an arbitrary memory write by a crafted slide
NEEDED_DISK_GB = 2.0
WANTED_DISK_GB = 20.0
# Measured with the demo model on CPU: vLLM 3.3 GB, a worker about 1 GB, API and Redis 0.3 GB.
NEEDED_MEMORY_GB = 4.0
WANTED_MEMORY_GB = 6.0

CheckState = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One line of the report; `remedy` is empty when there is nothing to do."""

    name: str
    state: CheckState
    seen: str
    remedy: str = ""


def check_python() -> Finding:
    """vLLM 0.32 and torch 2.13 have builds for 3.11 to 3.14."""
    seen = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] <= (3, 14):
        return Finding("python", "ok", seen)
    return Finding("python", "fail", seen, "Install Python 3.11 to 3.14 and make the environments with it.")


def check_server_environment() -> Finding:
    """What our metadata pins is what is installed."""
    remedy = f"To repair it, {MAKE_ENVIRONMENTS}."
    for name, wanted in pinned_versions("worker").items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            return Finding("server environment", "fail", f"{name} is missing", remedy)
        if installed.split("+")[0] != wanted:
            return Finding("server environment", "fail", f"{name} {installed}, pinned is {wanted}", remedy)
    return Finding("server environment", "ok", f"torch {version('torch')}")


def check_vllm_environment(settings: Settings) -> Finding:
    """vLLM, the plugin, and the same torch as the encoders; built for what this machine computes on."""
    found = read_vllm_environment(vllm_python())
    remedy = f"To repair it, {MAKE_ENVIRONMENTS}; or name another interpreter in EYEPIECE_VLLM_PYTHON."
    if not found.python.exists():
        return Finding("vllm environment", "fail", "there is none", remedy)
    if found.vllm_version is None or not found.vllm_version.startswith(VLLM_VERSION):
        seen = f"vLLM {found.vllm_version or 'is missing'}, needed is {VLLM_VERSION}"
        return Finding("vllm environment", "fail", seen, remedy)
    if not found.has_plugin:
        return Finding("vllm environment", "fail", "Eyepiece's plugin is not installed in it", remedy)
    if library := missing_system_library(found):
        return Finding("vllm environment", "fail", f"{library} is missing", f"vLLM needs it: {INSTALL_LIBNUMA}.")
    if problem := unusable_by_vllm(found, settings.device):
        seen, _, remedy = problem.partition(". ")
        return Finding("vllm environment", "fail", seen, remedy)
    if found.torch_version != version("torch"):
        seen = f"torch {found.torch_version} here and {version('torch')} in the server's"
        return Finding("vllm environment", "warn", seen, remedy)
    kind = "CPU" if found.is_cpu_build else "CUDA"
    return Finding("vllm environment", "ok", f"vLLM {found.vllm_version}, {kind} build")


def check_gpu(settings: Settings) -> Finding:
    """A GPU that is here is used, unless the CPU was asked for; what keeps it from being used is told."""
    names = visible_gpus()
    if problem := unusable_by_encoders(settings.device):
        seen, _, remedy = problem.partition(". ")
        return Finding("gpu", "fail", seen, remedy)
    if not names:
        return Finding("gpu", "ok", "none, everything runs on the CPU")
    if settings.device.startswith("cpu"):
        return Finding("gpu", "ok", f"{', '.join(names)}: not used by the encoders, EYEPIECE_DEVICE is cpu")
    return Finding("gpu", "ok", f"{', '.join(names)}, driver {driver_version() or 'unknown'}")


def check_openslide() -> Finding:
    """The bundled library, never the distribution's old one."""
    import openslide

    seen = openslide.__library_version__
    if tuple(map(int, seen.split("."))) >= OLDEST_OPENSLIDE:
        return Finding("openslide", "ok", seen)
    remedy = f"Slides could take over the reader process (CVE-2026-48977): {MAKE_ENVIRONMENTS}."
    return Finding("openslide", "fail", seen, remedy)


def check_sandbox() -> Finding:
    """A process that parses a slide sees that slide and nothing else; the probe loads the parsers in there, too."""
    layers = layers_in_force()
    if layers is None:
        remedy = f"No slide can be read: {MAKE_ENVIRONMENTS}, and keep Python and its packages out of the data folder."
        return Finding("slide sandbox", "fail", "the process that parses slides does not start", remedy)
    seen = describe_layers(layers)
    remedy = "SECURITY.md says what each layer keeps out; Linux 5.13 or newer has Landlock, without any privilege."
    return Finding("slide sandbox", "ok" if is_confined(layers) else "warn", seen, remedy)


def check_compiled_mean() -> Finding:
    """The one part that is compiled when Eyepiece is installed; nothing but time depends on it."""
    from encoders.tiling.slide_readers.area_mean import IS_COMPILED

    if IS_COMPILED:
        return Finding("slide reader", "ok", "compiled")
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return Finding("slide reader", "ok", "OpenCV alone, as on every machine but Linux on x86-64")
    remedy = f"On a CPU with AVX2, install a C compiler (Debian: `apt-get install gcc`), and {MAKE_ENVIRONMENTS}."
    return Finding("slide reader", "warn", "not compiled: some slides take 4 % longer to read", remedy)


def check_port(host: str, port: int, choose: str = "choose another one with --port") -> Finding:
    """Nothing else listens there, and this user may."""
    try:
        for listener in bind(host, port):
            listener.close()
    except OSError as error:
        seen = f"port {port} on {host}: {(error.strerror or str(error)).lower()}"
        remedy = f"Stop what listens on port {port}, or {choose}."
        return Finding("port", "fail", seen, remedy)
    return Finding("port", "ok", f"{port} on {host} is free")


def check_disk(data_dir: Path) -> Finding:
    """Room for slides and embeddings."""
    free_gb = shutil.disk_usage(nearest_folder(data_dir)).free / 1e9
    seen = f"{free_gb:.0f} GB free for {data_dir}"
    remedy = f"Make room there, or choose a larger disk with --data-dir; slides need {WANTED_DISK_GB:.0f} GB."
    if free_gb < NEEDED_DISK_GB:
        return Finding("disk", "fail", seen, remedy)
    return Finding("disk", "ok" if free_gb >= WANTED_DISK_GB else "warn", seen, remedy)


def check_memory() -> Finding:
    """What is available now, without swapping."""
    available_gb = available_memory_bytes() / 1e9
    seen = f"{available_gb:.1f} GB available"
    remedy = f"Close other programs or use a larger machine: {WANTED_MEMORY_GB:.0f} GB are comfortable."
    if available_gb < NEEDED_MEMORY_GB:
        return Finding("memory", "fail", seen, remedy)
    return Finding("memory", "ok" if available_gb >= WANTED_MEMORY_GB else "warn", seen, remedy)


def check_data_folder(data_dir: Path) -> Finding:
    """Writable, and not in use by another `eyepiece up`."""
    problem = folder_problem(data_dir)
    if problem is not None:
        return Finding("data folder", "fail", problem, "Choose another folder with --data-dir.")
    holder = holder_of(data_dir)
    if holder is not None:
        remedy = "Use that server, or stop it first; a lock never outlives its process."
        return Finding("data folder", "warn", f"in use by `eyepiece up`, process {holder}", remedy)
    return Finding("data folder", "ok", str(data_dir))


def check_redis(settings: Settings) -> Finding:
    """The server that is named answers; or there is one to start."""
    if settings.redis_is_external:
        if answers(settings.redis_url.get_secret_value()):
            return Finding("redis", "ok", "the server of EYEPIECE_REDIS_URL answers")
        remedy = "Start it or correct EYEPIECE_REDIS_URL; without it `eyepiece up` starts one."
        return Finding("redis", "fail", "the server of EYEPIECE_REDIS_URL does not answer", remedy)
    try:
        return Finding("redis", "ok", f"{choose_server(settings.data_dir / 'redis')} will be started")
    except NoServer as error:
        return Finding("redis", "fail", "no server to start", str(error))


def check_model(settings: Settings) -> Finding:
    """Every model that is to be served is installed, and every file is what its digest says."""
    folder = settings.installed_models_dir
    said: list[str] = []
    doubts: list[str] = []
    for name in (served.name for served in settings.served_models):
        if name in packaged_models() and not (folder / name).exists():
            said.append(f"{name} ships with Eyepiece and is installed at the first start")
            continue
        try:
            model = open_model(folder, name)
            verify_digests(model)
        except ModelError as error:
            return Finding("model", "fail", error.detail, "`eyepiece models list` shows what is installed.")
        said.append(f"{name}, every digest is right")
        doubts += [f"{name}: {doubt}" for doubt in model.manifest.doubts]
    if doubts:
        return Finding("model", "warn", " ".join(doubts), "Get weights without that fault, and convert them.")
    return Finding("model", "ok", "; ".join(said))


def check_private(settings: Settings) -> Finding:
    """Nobody but its user can read slides, conversations and keys."""
    folders = private_folders(settings)
    open_ones = [path for folder in folders for path in open_to_others(folder)]
    if not open_ones:
        return Finding("private files", "ok", "for this user only, or not there yet")
    places = " and ".join(str(folder) for folder in folders if any(folder in (it, it.parent) for it in open_ones))
    return Finding(
        "private files",
        "warn",
        f"other users have rights on {len(open_ones)} files or folders in {places}",
        f"`eyepiece up` takes them away when it starts; or run `chmod -R go= {places.replace(' and ', ' ')}`.",
    )


def all_checks(settings: Settings) -> list[Callable[[], Finding]]:
    """What `doctor` runs, in the order of the report."""
    return [
        check_python,
        check_server_environment,
        lambda: check_vllm_environment(settings),
        lambda: check_gpu(settings),
        check_openslide,
        check_sandbox,
        check_compiled_mean,
        lambda: check_port(settings.host, settings.port),
        lambda: check_data_folder(settings.data_dir),
        lambda: check_private(settings),
        lambda: check_disk(settings.data_dir),
        check_memory,
        lambda: check_redis(settings),
        lambda: check_model(settings),
    ]


def nearest_folder(path: Path) -> Path:
    """`path`, or the closest folder above it that exists already."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def available_memory_bytes() -> int:
    """MemAvailable of Linux, or less where a container's limit is lower; elsewhere the whole memory."""
    meminfo, limit = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
    if not meminfo.exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        return min(available, int(text))
    return available
