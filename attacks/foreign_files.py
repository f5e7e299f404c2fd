"""Index files that name what is not theirs: another tenant's slide, a picture of the machine, devices, FIFOs.

For each kind the same slide is sent with a name that exists and with one that does not. Neither may be taken, and
nothing in the replies may tell them apart, nor may the time.
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from attacks import index_files as index
from attacks.findings import Finding, nothing_of, times_tell
from attacks.own_server import OwnServer
from attacks.sample_slides import features_file, jpeg, ready_slide
from attacks.target import FormFile

_PAIRS = 10
_HELD_AT_MOST_S = 10.0
_UNTRUE_NAMES = (
    "/etc/passwd",
    "../../other/slides/x",
    "a/../../b",
    "..",
    ".",
    "a//b",
    "a/./b",
    "..\\..\\b",
    "a\x00b",
    "tree/../../slide.json",
    "C:\\x",
)
Build = Callable[[Path], list[FormFile]]


@dataclass(frozen=True)
class Kind:
    """A slide that names a file; `is_whole` when it is a slide without that file too, `opens_at_once` when the upload
    is answered 202 only if its pixels were found."""

    name: str
    build: Build
    is_whole: bool = False
    opens_at_once: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a client learns of an upload, to the end of its encode; and how long the reply to the upload took."""

    learnt: str
    is_taken: bool
    took_s: float


async def attack(server: OwnServer, share: float) -> AsyncIterator[Finding]:
    """Every kind with every name."""
    yield await _controls(server)
    with planted(server.data_dir.parent / "planted") as folder:
        secret_file = await _file_of_other(server)
        features = await _features_of_other(server)
        for kind in _pixel_kinds():
            picture = folder / ("pixels.ngr" if kind.name.startswith("VMU") else "picture.jpg")
            yield await _tell_apart(server, kind, (secret_file, picture, Path("/etc/passwd")), share)
        for kind in _features_kinds():
            yield await _tell_apart(server, kind, (features, Path("/etc/passwd")), share)
        yield await _names(server)
        yield await _nothing_holds_a_reader(server, folder)


def _pixel_kinds() -> list[Kind]:
    def beside(text: bytes) -> list[FormFile]:
        return [("file", "slide.vms", text), ("file", "b.jpg", jpeg())]

    def without(name: str, build: Build) -> Kind:
        return Kind(name, build, opens_at_once=True)

    def despite(name: str, build: Build) -> Kind:
        return Kind(name, build, is_whole=True)

    name = index.from_anywhere
    return [
        without("VMS image", lambda path: [("file", "slide.vms", index.vms(name(path)))]),
        without("MIRAX data", lambda path: index.mirax(name(path), _size_of(path))),
        without("VMS image, absolute name", lambda path: [("file", "slide.vms", index.vms(str(path)))]),
        without("VMS image, form of two", lambda path: beside(index.vms(name(path)))),
        without("VMU image", lambda path: [("file", "slide.vmu", index.vmu(name(path)))]),
        without("MIRAX index", lambda path: index.mirax("slide.mrxs", 1000, index_file=name(path))),
        despite("VMS map", lambda path: beside(index.vms("b.jpg", map_file=name(path)))),
        despite("VMS macro", lambda path: beside(index.vms("b.jpg", macro=name(path)))),
        despite("VMS optimisation", lambda path: beside(index.vms("b.jpg", optimisation=name(path)))),
    ]


def _features_kinds() -> list[Kind]:
    def of(build: Callable[[Path], bytes]) -> Build:
        return lambda path: [("file", "slide.h5", build(path))]

    return [
        Kind("HDF5 external link", of(index.external_link)),
        Kind("HDF5 all links", of(index.external_group)),
        Kind("HDF5 virtual data set", of(index.virtual_dataset)),
        Kind("HDF5 external storage", of(index.external_storage)),
        Kind("HDF5 coordinates by link", of(index.external_coords)),
    ]


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 5000


async def _controls(server: OwnServer) -> Finding:
    """The builders make good slides: what is refused below is refused for the names in it."""
    wholes = {"VMS": index.whole_vms(), "MIRAX": index.whole_mirax(), "HDF5": [("file", "a.h5", features_file())]}
    wrong = []
    for name, files in wholes.items():
        reply = await server.target.upload(files, server.attacker)
        if reply.status not in (200, 202):
            wrong.append(f"{name} {reply.status} {reply.code}")
    return nothing_of("control: whole slides of several files", wrong, "all are taken", len(wholes))


async def _file_of_other(server: OwnServer) -> Path:
    """A picture in the store that belongs to another tenant: a part of their slide."""
    files = index.whole_vms()
    reply = await server.target.upload(files, server.other)
    folder = server.slide_folder("other", str(reply.json["id"]))
    return folder / "source" / "files" / hashlib.sha256(files[1][2]).hexdigest()


async def _features_of_other(server: OwnServer) -> Path:
    slide_id = await ready_slide(server, server.other)
    (path,) = (server.slide_folder("other", slide_id) / "features").glob("*.h5")
    return path


async def _tell_apart(server: OwnServer, kind: Kind, paths: tuple[Path, ...], share: float) -> Finding:
    """Existing names beside names of the same length that do not exist."""
    wrong, there, missing = [], [], []
    for path in paths:
        if not path.is_file():
            raise RuntimeError(f"nothing is there to be read: {path.name}")
        for _ in range(max(2, round(_PAIRS * share / len(paths)) + 1)):
            there.append(await _outcome(server, kind, path))
            missing.append(await _outcome(server, kind, path.with_name(_other_name(path.name))))
            if there[-1].is_taken and not kind.is_whole:
                wrong.append(f"taken: {there[-1].learnt}")
            elif there[-1].learnt != missing[-1].learnt:
                wrong.append(f"there: {there[-1].learnt}, missing: {missing[-1].learnt}")
        if len(wrong) > 2:
            break
    tells = times_tell([it.took_s for it in there], [it.took_s for it in missing])
    if tells:
        wrong.append("the time tells them apart")
    return nothing_of(f"foreign file, {kind.name}", wrong, "not taken; the same whether it exists", len(there))


def _other_name(name: str) -> str:
    return ("0" if name[0] != "0" else "1") + name[1:]


async def _outcome(server: OwnServer, kind: Kind, path: Path) -> Outcome:
    files = kind.build(path)
    reply = await server.target.upload(files, server.attacker)
    if reply.status not in (200, 202):
        return Outcome(f"{reply.status} {reply.code} {reply.json.get('detail')}", False, reply.took_s)
    slide_id = str(reply.json["id"])
    if kind.opens_at_once:  # it was opened
        return Outcome(f"{reply.status}, {reply.json['width']} px wide", True, reply.took_s)
    state = await server.target.wait_until_encoded(slide_id, server.attacker, 60)
    slide = (await server.target.get(f"/v1/slides/{slide_id}", server.attacker)).json
    thumbnail = await server.target.get(f"/v1/slides/{slide_id}/thumbnail", server.attacker)
    learnt = f"{reply.status} {state} {slide.get('width')} {slide.get('error')} thumbnail {thumbnail.status}"
    is_taken = state == "ready" or thumbnail.status == 200
    await server.target.send("DELETE", f"/v1/slides/{slide_id}", key=server.attacker)
    return Outcome(learnt, is_taken, reply.took_s)


@contextlib.contextmanager
def planted(folder: Path) -> Iterator[Path]:
    """A folder outside the data folder with a picture, pixels of a VMU, and a FIFO that nobody writes to."""
    folder.mkdir()
    (folder / "picture.jpg").write_bytes(jpeg())
    (folder / "pixels.ngr").write_bytes(index.ngr())
    os.mkfifo(folder / "fifo")
    yield folder


async def _nothing_holds_a_reader(server: OwnServer, folder: Path) -> Finding:
    """FIFOs, devices and the reader's own descriptors."""
    names = [folder / "fifo", *map(Path, ("/dev/zero", "/dev/tty", "/dev/stdin", "/proc/self/fd/0", "/proc/self/fd/3"))]
    names += [
        folder / "pixels.ngr",
        *map(Path, ("/proc/self/environ", "/proc/self/mem", "/proc/1/environ", "/dev/kmsg")),
    ]

    wrong: list[str] = []
    for path in names:
        for kind in _pixel_kinds()[:2]:
            files = [*kind.build(path), ("file", f"{secrets.token_hex(4)}.bin", b"x")]
            reply = await server.target.upload(files, server.attacker, timeout_s=_HELD_AT_MOST_S)
            if reply.status in (0, 200, 202) or reply.status >= 500:
                wrong.append(f"{kind.name} {path.name}: {reply.status or 'no reply'}")
        if len(wrong) > 2:  # each of them holds a reader, and soon there is none left
            break
    return nothing_of("FIFOs, devices, /proc in an index file", wrong, "refused within 10 s", len(names))


async def _names(server: OwnServer) -> Finding:
    """Names of parts that lead out of the slide's folder, alone and beside another file."""
    wrong = []
    for name in _UNTRUE_NAMES:
        files = [("file", name, jpeg(64)), ("file", "slide.vms", index.vms(name))]
        reply = await server.target.upload(files, server.attacker)
        if not 400 <= reply.status < 500:
            wrong.append(f"{name!r}: {reply.status}")
    strays = [it for it in server.data_dir.parent.iterdir() if it.name in ("b", "x", "passwd")]
    wrong += [f"written outside: {it.name}" for it in strays]
    return nothing_of(
        "names of parts that lead out of the slide", wrong, "refused, nothing written", len(_UNTRUE_NAMES)
    )
