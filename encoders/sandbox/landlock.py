"""Landlock: the process may read what it is given and nothing else, for good. Needs no privilege.

It knows no path, only files: a rule for a file holds under each of its names, and links do not lead around it.
"""

import ctypes
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from encoders.sandbox.kernel_calls import (
    LANDLOCK_ADD_RULE,
    LANDLOCK_CREATE_RULESET,
    LANDLOCK_RESTRICT_SELF,
    raw,
    system_call,
)

# <linux/landlock.h>
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
READ_FILE, READ_DIR = 1 << 2, 1 << 3
# How many of the rights to files each version of the interface knows; what is not named below is refused.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_FILE_RIGHTS_SINCE_5 = 16
_TCP_SINCE, _TCP = 4, 0b11
_SCOPE_SINCE, _SCOPE = 6, 0b11  # abstract Unix sockets and signals


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def landlock_version() -> int:
    """The version of the kernel's interface; 0 or less where there is none."""
    return system_call(LANDLOCK_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)


def restrict_files(allowed: Mapping[Path, int]) -> bool:
    """Leaves this process the rights (READ_FILE, READ_DIR) to each path and what is below; False where refused.

    Must run while the process has one thread, with no_new_privs set. A path that is not there is left out. Where the
    kernel can, TCP, abstract Unix sockets and signals to other processes go too.
    """
    version = landlock_version()
    if version < 1:
        return False
    rules = _Ruleset(
        files=(1 << _FILE_RIGHTS.get(version, _FILE_RIGHTS_SINCE_5)) - 1,
        network=_TCP if version >= _TCP_SINCE else 0,
        scoped=_SCOPE if version >= _SCOPE_SINCE else 0,
    )
    # An older kernel refuses a longer structure only if what it does not know is not zero.
    ruleset = system_call(LANDLOCK_CREATE_RULESET, ctypes.byref(rules), ctypes.sizeof(rules), 0)
    if ruleset < 0:
        return False
    try:
        for path, rights in allowed.items():
            with suppress(FileNotFoundError):
                _allow(ruleset, path, rights)
        return system_call(LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0
    except OSError:
        return False
    finally:
        os.close(ruleset)


def readable(paths: Iterable[Path]) -> dict[Path, int]:
    """Rules to read files, and folders with all that is in them."""
    return {path: READ_FILE | READ_DIR if path.is_dir() else READ_FILE for path in paths}


def _allow(ruleset: int, path: Path, rights: int) -> None:
    descriptor = os.open(raw(path), os.O_PATH | os.O_CLOEXEC)
    try:
        rule = _PathBeneath(allowed=rights, parent=descriptor)
        if system_call(LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0) != 0:
            raise OSError(ctypes.get_errno(), "a Landlock rule is refused")
    finally:
        os.close(descriptor)
