"""Paths that this interpreter and its libraries must be able to read: found out here, not listed by hand.

The folder of the checkout, or any folder from which our packages are imported, is not among it: only the packages are.
"""

import importlib.util
import os
import site
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

# What the parsers import of ours.
_OUR_PACKAGES = ("encoders", "model_store")
_LOADER_CACHE = Path("/etc/ld.so.cache")
_MAPPINGS = Path("/proc/self/maps")


def needed_paths(hidden: Iterable[Path]) -> tuple[Path, ...]:
    """Folders and files without links in their paths, none inside another, and none that holds a path of `hidden`."""
    secrets = tuple(hidden)
    found = {Path(os.path.realpath(path)) for path in _candidates() if path.exists()}
    allowed = {path for path in found if not any(secret.is_relative_to(path) for secret in secrets)}
    return tuple(sorted(path for path in allowed if not allowed.intersection(path.parents)))


def _candidates() -> Iterator[Path]:
    for name in ("stdlib", "platstdlib", "purelib", "platlib"):
        yield Path(sysconfig.get_path(name))
    yield from map(Path, site.getsitepackages())
    if site.ENABLE_USER_SITE:
        yield Path(site.getusersitepackages())
    for package in _OUR_PACKAGES:
        spec = importlib.util.find_spec(package)
        yield from map(Path, (spec.submodule_search_locations or ()) if spec else ())
    yield from _loaders_folders()
    yield _LOADER_CACHE


def _loaders_folders() -> Iterator[Path]:
    """Where the libraries lie that are loaded already: those that come later lie there, or beside Python's modules."""
    yield from (Path(name) for name in os.environ.get("LD_LIBRARY_PATH", "").split(":") if os.path.isabs(name))
    try:
        lines = _MAPPINGS.read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and b"x" in fields[1] and b".so" in os.path.basename(fields[5]):
            yield Path(os.fsdecode(fields[5])).parent
