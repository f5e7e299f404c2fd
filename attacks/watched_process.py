"""The price of an attack in the API's process: memory, CPU, descriptors, sockets; and how long others wait."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import psutil  # type: ignore[import-untyped]

from attacks.own_server import ROOT
from attacks.target import Target

_LOOK_EVERY_S = 0.1


def close_wait(process: psutil.Process) -> int:
    """Sockets whose client is gone and which the process keeps open."""
    return sum(it.status == psutil.CONN_CLOSE_WAIT for it in process.net_connections("tcp"))


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds that it has used, in user space and in the kernel."""
    times = process.cpu_times()
    return float(times.user + times.system)


@dataclass
class Memory:
    """Resident megabytes: before, and the most that was seen since."""

    before_mb: float
    most_mb: float

    @property
    def growth_mb(self) -> float:
        """How much more it became."""
        return self.most_mb - self.before_mb


@asynccontextmanager
async def watched_memory(process: psutil.Process) -> AsyncIterator[Memory]:
    """The process's memory while the block runs."""

    def now_mb() -> float:
        return float(process.memory_info().rss) / 2**20

    async def look() -> None:
        while True:
            memory.most_mb = max(memory.most_mb, now_mb())
            await asyncio.sleep(_LOOK_EVERY_S)

    memory = Memory(now_mb(), now_mb())
    task = asyncio.create_task(look())
    try:
        yield memory
        memory.most_mb = max(memory.most_mb, now_mb())
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@dataclass
class Waits:
    """Seconds that GET /livez took; filled at the end."""

    seconds: list[float] = field(default_factory=list)


@asynccontextmanager
async def watched_livez(target: Target) -> AsyncIterator[Waits]:
    """How long /livez takes while the block runs, measured by a process of its own."""
    waits = Waits()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "attacks.watch_livez",
        str(target.port),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    try:
        yield waits
    finally:
        told, _ = await process.communicate(b"")
        waits.seconds += json.loads(told)
