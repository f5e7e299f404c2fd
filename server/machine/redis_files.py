"""Finds out which server wrote a folder of Redis files, and which servers can read them.

Redis and Valkey refuse files of a later format, and call them damaged when they do. So the folder notes who wrote it
last (`server.json`), and its files say it themselves: a snapshot begins with its format (`REDIS0011`, `VALKEY080`) and
the name and version of its writer.
"""

import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from server.storage.private_files import write_private

NOTE = "server.json"
_MULTIPART = "appendonlydir"  # since Redis 7.0; an older one does not see it, and starts empty
_VERSION_TIMEOUT_S = 10.0
_SAYS_VERSION = re.compile(r"^(Redis|Valkey) server v=(\d+)\.(\d+)\.(\d+)", re.MULTILINE)
_HEADER_BYTES = 256
_HEADER = re.compile(rb"^(REDIS|VALKEY)(\d{3,4})")
_WRITER = re.compile(rb"\xfa.(redis|valkey)-ver.(\d+)\.(\d+)\.(\d+)", re.DOTALL)

Kind = Literal["redis", "valkey"]
# The latest format of a snapshot that a release is known to read (RDB_VERSION in its rdb.h). Valkey's own
# numbers begin at 80, and Valkey refuses Redis' from 12 on.
_READS: dict[Kind, tuple[tuple[tuple[int, int], int], ...]] = {
    "redis": (((7, 4), 12), ((7, 2), 11), ((7, 0), 10), ((5, 0), 9)),
    "valkey": (((9, 0), 80), ((7, 2), 11)),
}
_LAST_SHARED_FORMAT = 11


@dataclass(frozen=True)
class ServerRelease:
    """A server by name and version, e.g. Valkey 9.1.2."""

    kind: Kind
    version: tuple[int, int, int]

    def __str__(self) -> str:
        return f"{self.kind.capitalize()} {'.'.join(map(str, self.version))}"


@dataclass(frozen=True)
class WrittenFiles:
    """What the files of a folder ask of a server that is to read them; `formats` as their headers say it.

    `is_unknown` when a snapshot has a header that is none: then only its writer's successors are let at it.
    """

    is_multipart: bool
    is_unknown: bool
    formats: frozenset[tuple[Kind, int]]
    writer: ServerRelease | None


def release_of(binary: Path) -> ServerRelease | None:
    """What the program says it is; None when it says nothing that is known."""
    try:
        said = subprocess.run(
            [binary, "--version"],
            capture_output=True,
            timeout=_VERSION_TIMEOUT_S,
            text=True,
            errors="replace",
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _SAYS_VERSION.search(said)
    return None if found is None else _release(found[1].lower(), found.groups()[1:])


def written_files(folder: Path) -> WrittenFiles | None:
    """What is in the folder, or None when nothing is."""
    paths = list(_data_files(folder))
    headers = [_read_header(path) for path in paths]
    if not paths:
        return None
    is_unknown = any(path.suffix == ".rdb" and not _HEADER.match(it) for path, it in zip(paths, headers, strict=True))
    formats = {(_kind(found[1].decode().lower()), int(found[2])) for it in headers if (found := _HEADER.match(it))}
    writers = [_release(found[1].decode(), found.groups()[1:]) for it in headers if (found := _WRITER.search(it))]
    writer = _noted_writer(folder) or max(writers, key=lambda it: it.version, default=None)
    return WrittenFiles((folder / _MULTIPART).is_dir(), is_unknown, frozenset(formats), writer)


def can_read(release: ServerRelease | None, files: WrittenFiles | None) -> bool:
    """Whether this server is known to read the files; what is not known is not tried on them."""
    if files is None:
        return True
    if release is None or (files.is_multipart and release.version < (7, 0, 0)):
        return False
    if files.is_unknown and not _succeeds(release, files.writer):
        return False
    return all(_reads_format(release, kind, number, files.writer) for kind, number in files.formats)


def note_server(folder: Path, release: ServerRelease | None) -> None:
    """Remember who writes the folder from now on."""
    if release is not None:
        write_private(folder / NOTE, json.dumps(asdict(release)) + "\n")


def _reads_format(release: ServerRelease, kind: Kind, number: int, writer: ServerRelease | None) -> bool:
    if release.kind == kind and _succeeds(release, writer):
        return True  # each reads what those before it wrote
    limits = [limit for since, limit in _READS[release.kind] if release.version[:2] >= since]
    if not limits:
        return False
    if release.kind == kind:
        return number <= limits[0]
    return number <= min(limits[0], _LAST_SHARED_FORMAT)


def _succeeds(release: ServerRelease, writer: ServerRelease | None) -> bool:
    return writer is not None and release.kind == writer.kind and release.version >= writer.version


def _data_files(folder: Path) -> Iterator[Path]:
    for single in ("dump.rdb", "appendonly.aof"):
        if (folder / single).is_file():
            yield folder / single
    if (folder / _MULTIPART).is_dir():
        yield from (path for path in (folder / _MULTIPART).iterdir() if not path.name.startswith("temp-"))


def _read_header(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEADER_BYTES)
    except OSError:
        return b""


def _noted_writer(folder: Path) -> ServerRelease | None:
    try:
        noted = json.loads((folder / NOTE).read_text())
        return _release(noted["kind"], noted["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # the files say it too


def _release(kind: str, version: Iterable[str | bytes | int]) -> ServerRelease:
    major, minor, patch = (int(part) for part in version)
    return ServerRelease(_kind(kind), (major, minor, patch))


def _kind(name: str) -> Kind:
    if name == "redis":
        return "redis"
    if name == "valkey":
        return "valkey"
    raise ValueError(name)
