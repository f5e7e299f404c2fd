"""Takes from the calling process what parsing a slide does not need. Runs before the parsers are loaded."""

import ctypes
import os
import resource
import signal
from collections.abc import Callable

from encoders.sandbox.kernel_calls import call
from encoders.tiling.isolation.reader_limits import ReaderLimits

# <linux/prctl.h>, <linux/sched.h>, <linux/capability.h>
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_CAPABILITY_VERSION_3 = 0x20080522
NETWORK_LEFT = "The reader is not cut off from the network."
# MIRAX and DICOM slides are many files; libraries and pipes take about 20.
_OPEN_FILES = 512


def limit_process(limits: ReaderLimits, parent_pid: int) -> list[str]:
    """Limits this process for good; returns one sentence for each limit that the platform did not grant.

    Must run while the process has one thread: a user namespace is refused to a process with more.
    Exits at once when the parent is already gone.
    """
    resources = {
        "memory": (resource.RLIMIT_AS, limits.memory_bytes),
        "CPU time": (resource.RLIMIT_CPU, limits.cpu_s),
        "file writing": (resource.RLIMIT_FSIZE, 0),
        "core dumps": (resource.RLIMIT_CORE, 0),
        "open files": (resource.RLIMIT_NOFILE, _OPEN_FILES),
    }
    degraded = [
        f"The reader's {name} is not limited." for name, (which, most) in resources.items() if not _set(which, most)
    ]
    # Order: a change of credentials, as in a new user namespace, clears the parent-death signal.
    privileges: dict[str, Callable[[], bool]] = {
        "The reader may gain privileges.": _no_new_privileges,
        NETWORK_LEFT: _leave_network,
        "The reader keeps its capabilities.": _drop_capabilities,
        "The reader outlives a killed parent until its next answer.": _die_with_parent,
    }
    degraded += [sentence for sentence, granted in privileges.items() if not granted()]
    if os.getppid() != parent_pid:
        raise SystemExit("The reader's parent is gone.")
    return degraded


def _set(which: int, most: int) -> bool:
    hard = resource.getrlimit(which)[1]
    limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
    try:
        resource.setrlimit(which, (limit, limit))
    except (ValueError, OSError):
        return False
    return True


def _no_new_privileges() -> bool:
    return call(
        "prctl", _PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)
    )


def _leave_network() -> bool:
    # With a user namespace it needs no privilege; containers that forbid those may still allow it to root.
    return call("unshare", _CLONE_NEWUSER | _CLONE_NEWNET) or call("unshare", _CLONE_NEWNET)


def _drop_capabilities() -> bool:
    # A new user namespace hands out all of them within it.
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()
    return call("capset", header, none)


def _die_with_parent() -> bool:
    return call("prctl", _PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
