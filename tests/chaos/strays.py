"""What outlives its parents: processes that nobody waits for, and shared memory that nobody maps. Linux only."""

import ctypes
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_SHARED_MEMORY = Path("/dev/shm")
# The inode tells them apart, not the name: a semaphore gets its own only after it was mapped.
_MAPPED = re.compile(r"(\d+) +/dev/shm/")
# libomp names the page by which its copies in one process find each other after the process.
_OPENMP_PAGE = re.compile(r"__KMP_REGISTERED_LIB_(\d+)_\d+")


@dataclass
class Strays:
    """Knows every process of a run: orphans become our children, because we are their subreaper."""

    ours: frozenset[int]
    pids: set[int] = field(default_factory=set)
    mapped: set[int] = field(default_factory=set)

    def look(self, processes: Iterable[psutil.Process]) -> None:
        """Notes who is there and which shared memory they have. A look a second misses only what lives shorter.

        Orphans that have ended are reaped, as by any init: whoever waits for their group would wait for ever.
        """
        self.processes()
        for process in processes:
            self.pids.add(process.pid)
            with suppress(OSError):
                self.mapped.update(map(int, _MAPPED.findall(Path(f"/proc/{process.pid}/maps").read_text())))

    def processes(self) -> list[str]:
        """Orphans that still live, by command line; those that have ended are reaped."""
        orphans = [child for child in psutil.Process().children(recursive=True) if child.pid not in self.ours]
        return [line for child in orphans if (line := _line_of_living(child))]

    def shared_memory(self) -> list[str]:
        """Names in /dev/shm that the run's processes have left, but for OpenMP's pages."""
        return [
            it.name for it in _shared_memory() if it.stat().st_ino in self.mapped and not _OPENMP_PAGE.match(it.name)
        ]

    def openmp_pages(self) -> int:
        """How many pages of 1 KiB OpenMP has left, one for each of its processes that was killed. Nobody else can know
        that they are not needed any more."""
        found = (_OPENMP_PAGE.fullmatch(it.name) for it in _shared_memory())
        return sum(int(match[1]) in self.pids for match in found if match)


@contextmanager
def watched_strays() -> Iterator[Strays]:
    """Within the block this process inherits the orphans of everything that it starts."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    ours = frozenset(child.pid for child in psutil.Process().children(recursive=True))
    assert prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0, "this needs Linux"
    try:
        yield Strays(ours)
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _shared_memory() -> list[Path]:
    return sorted(_SHARED_MEMORY.iterdir()) if _SHARED_MEMORY.is_dir() else []


def _line_of_living(process: psutil.Process) -> str:
    """Its command line; empty when it has ended, and then it is reaped if that falls to us."""
    with suppress(psutil.NoSuchProcess):
        if process.status() != psutil.STATUS_ZOMBIE:
            return " ".join(process.cmdline()) or process.name()
        with suppress(ChildProcessError):  # its parent's to reap
            os.waitpid(process.pid, os.WNOHANG)
    return ""
