"""The processes under attack, as `eyepiece up` starts them, and how to find each of them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from chaos.plan import Victim
from chaos.slow_model import NAME
from running_server import RunningServer

from server.machine.redis_server import answers, free_loopback_port
from server.machine.supervise import die_with_parent

_TESTS = Path(__file__).resolve().parents[1]
_STOP_WITHIN_S = 180.0
_READER = "encoders.tiling.isolation.reader_child"
# In their command lines: Redis writes its own, and the last one is vLLM's stand-in.
_WORDS: Mapping[Victim, tuple[str, ...]] = {
    "worker": ("worker",),
    "redis": ("redis-server", "valkey-server"),
    "vllm": ("vllm.entrypoints.openai.api_server", "chaos.stand_in_vllm"),
}
# A cluster in a hurry: what a person waits minutes for happens within seconds, and in the same order.
_SETTINGS = {
    "EYEPIECE_JOB_HEARTBEAT_S": "4",
    "EYEPIECE_JOB_SWEEP_S": "1",
    "EYEPIECE_RECONCILE_EVERY_S": "5",
    "EYEPIECE_READER_DEADLINE_S": "15",
    # As on a GPU: a killed worker has several slides in hand.
    "EYEPIECE_SLIDES_AT_ONCE": "2",
    # The numbers depend on how many threads add them up.
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Reader:
    """A process that parses a slide for a worker; `slide_id` is None before it has opened one."""

    process: psutil.Process
    worker: psutil.Process
    slide_id: str | None


@dataclass(frozen=True)
class Stack:
    """`eyepiece up` and all below it."""

    server: RunningServer
    redis_url: str
    temporary_dir: Path

    @property
    def store_dir(self) -> Path:
        """The slide store."""
        return self.server.data_dir / "store"

    @property
    def staging_dir(self) -> Path:
        """What is not published yet."""
        return self.store_dir / "staging"

    @property
    def log_dir(self) -> Path:
        """A log for each component."""
        return self.server.data_dir / "logs"

    def components(self, victim: Victim) -> list[psutil.Process]:
        """The living processes of that kind, oldest first."""
        found = [child for child in self.server.process.children() if _has_word(child, _WORDS[victim])]
        return sorted(found, key=lambda process: process.pid)

    def only(self, victim: Victim) -> psutil.Process:
        """The one process of that kind, which must live."""
        (process,) = self.components(victim)
        return process

    def vllm_engine(self) -> psutil.Process:
        """The process in which vLLM's model runs; the stand-in is one with its server."""
        server = self.only("vllm")
        return next((child for child in _children(server) if "EngineCore" in child.name()), server)

    def readers(self) -> list[Reader]:
        """Every reader of every worker."""
        workers = self.components("worker")
        slide_ids = {_identity(path.stat()): path.parent.parent.name for path in self._sources()}
        return [
            Reader(child, worker, _slide_open_in(child, slide_ids))
            for worker in workers
            for child in _children(worker)
            if _has_word(child, (_READER,))
        ]

    def _sources(self) -> list[Path]:
        return list(self.store_dir.glob("tenants/*/slides/*/source/slide"))

    def reader_of(self, slide_id: str) -> Reader | None:
        """The reader that has the slide open, None when no worker reads it now."""
        return next((reader for reader in self.readers() if reader.slide_id == slide_id), None)

    def redis_answers(self) -> bool:
        """Whether Redis is up."""
        return answers(self.redis_url)

    def vllm_answers(self) -> bool:
        """Whether vLLM, or its stand-in, is up."""
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.server.environment_of('EYEPIECE_LLM_URL')}/health", timeout=2).status_code == 200
        return False

    def processes(self) -> list[psutil.Process]:
        """All that live below `up`, and itself."""
        return [self.server.process, *self.server.process.children(recursive=True)]


@contextmanager
def running_stack(folder: Path, *, workers: int, real_vllm: bool, settings: Mapping[str, str]) -> Iterator[Stack]:
    """Everything up and ready, under the new folder `folder`, with the models in `folder`/data/models; ends with the
    block, by SIGTERM as an operator would."""
    port, temporary = free_loopback_port(), folder / "tmp"
    temporary.mkdir()
    module = "server" if real_vllm else "chaos.up_with_stand_in"
    command = [sys.executable, "-m", module, "up", "--port", str(port), "--data-dir", str(folder / "data")]
    reading, writing = os.pipe()
    with (folder / "up.log").open("wb") as output, open(reading, "rb") as notifications:
        process = subprocess.Popen(
            [*command, "--model", NAME, "--workers", str(workers), "--notify-fd", str(writing)],
            pass_fds=(writing,),
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**_environment(temporary), **settings},
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
        os.close(writing)
        try:
            assert notifications.read() == b"ready\n", (folder / "up.log").read_text()
            server = RunningServer(f"http://127.0.0.1:{port}", folder / "data", psutil.Process(process.pid))
            yield Stack(server, server.environment_of("EYEPIECE_REDIS_URL"), temporary)
        finally:
            process.terminate()
            process.wait(_STOP_WITHIN_S)


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; a process that only waits to be reaped does not."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _environment(temporary: Path) -> dict[str, str]:
    """Ours, without what an operator may have set for another Eyepiece."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("EYEPIECE_") or "VLLM_PYTHON" in name
    }
    path = os.pathsep.join(map(str, (_TESTS, _TESTS / "support")))
    return inherited | _SETTINGS | {"PYTHONSAFEPATH": "1", "PYTHONPATH": path, "TMPDIR": str(temporary)}


def _children(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return list(process.children(recursive=True))
    return []


def _has_word(process: psutil.Process, words: tuple[str, ...]) -> bool:
    """Whether an argument is one of the words, or a title begins with its path; a process that is gone has none."""
    with suppress(psutil.NoSuchProcess):
        return any(argument.partition(" ")[0].endswith(words) for argument in process.cmdline())
    return False


def _slide_open_in(process: psutil.Process, slide_ids: Mapping[tuple[int, int], str]) -> str | None:
    """By the file itself: in the reader's own root it has another name."""
    with suppress(OSError):  # it has ended meanwhile
        for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(OSError):
                slide_id = slide_ids.get(_identity(descriptor.stat()))
                if slide_id is not None:
                    return slide_id
    return None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
