"""Multipart forms that are none: endless heads, preambles and epilogues, names, fields and parts beyond all measure."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from attacks.findings import Finding, at_most, nothing_of
from attacks.own_server import OwnServer
from attacks.sample_slides import features_file
from attacks.target import form, request_head
from attacks.watched_process import watched_memory

_MB = 2**20
# More than any honest form holds beside its file; a stream of it must not be taken to its end.
_ENDLESS_BYTES = 48 * _MB
_TAKEN_AT_MOST_BYTES = 16 * _MB
_BOUNDARY = "b" * 24
_OPEN = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.svs"\r\n'.encode()
_CLOSE = f"\r\n--{_BOUNDARY}--\r\n".encode()


@dataclass(frozen=True)
class Endless:
    """A body that starts with `start` and goes on with `piece` for ever."""

    name: str
    start: bytes
    piece: bytes

    def pieces(self) -> Iterator[bytes]:
        """As much of it as is sent at most."""
        yield self.start
        for _ in range(_ENDLESS_BYTES // len(self.piece)):
            yield self.piece


def _endless() -> list[Endless]:
    part = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n'.encode()
    whole = _OPEN + b"\r\n" + features_file() + _CLOSE
    return [
        Endless("one part header", _OPEN + b"X-Long: ", b"a" * 65536),
        Endless("part headers", _OPEN, b"X-Many: 0123456789\r\n" * 4096),
        Endless("name of a part header", _OPEN, b"a" * 65536),
        Endless("preamble", b"", b"preamble\r\n" * 8192),
        Endless("line breaks before the form", b"", b"\r\n" * 32768),
        Endless("epilogue", whole, b"epilogue\r\n" * 8192),
        Endless("other fields", b"", part * 1024),
        Endless("one other field", part[:-2], b"a" * 65536),
        Endless("empty files", b"", (_OPEN + b"\r\n\r\n") * 1024),
    ]


async def attack(server: OwnServer, share: float) -> AsyncIterator[Finding]:
    """Forms without an end, then odd ones."""
    async with watched_memory(server.process("api")) as memory:
        for it in _endless():
            yield await _taken(server, it)
        yield await _odd(server)
        yield await _hurt(server)
    yield at_most("forms: growth of the API's memory", memory.growth_mb, 128, "MB")
    staging = (server.data_dir / "store" / "staging").iterdir()
    # A worker's own folder is never empty while it lives: it holds its lock.
    strays = [it for it in staging if it.is_dir() and not it.name.startswith("worker-") and any(it.iterdir())]
    yield at_most("forms: half uploads left in the staging folder", len(strays), 0, "")


async def _taken(server: OwnServer, body: Endless) -> Finding:
    """How much is read before the server has had enough."""
    headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}", "Transfer-Encoding": "chunked"}
    head = request_head("POST", "/v1/slides", key=server.attacker, headers=headers)
    head = b"".join(line for line in head.splitlines(keepends=True) if not line.startswith(b"Content-Length"))
    sent, status = 0, 0
    try:
        async with asyncio.timeout(60), server.target.connection() as wire:
            await wire.write(head)
            answered = asyncio.ensure_future(wire.head())
            try:
                for piece in body.pieces():
                    if answered.done():
                        break
                    await wire.write(b"%x\r\n%s\r\n" % (len(piece), piece) if piece else b"")
                    sent += len(piece)
                else:
                    await wire.write(b"0\r\n\r\n")
            except ConnectionError:
                pass
            status, _ = await answered
    except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
        pass
    held = sent <= _TAKEN_AT_MOST_BYTES and status < 500
    seen = f"{sent / _MB:.0f} MB taken, {status or 'closed'}"
    return Finding(f"endless {body.name}", seen, f"refused within {_TAKEN_AT_MOST_BYTES // _MB} MB", held)


async def _odd(server: OwnServer) -> Finding:
    """Names and numbers beyond what a file system or a parser takes: a clear refusal, or taken."""
    long, features = "n" * 300, features_file()
    cases: dict[str, Callable[[], list[tuple[str, str, bytes]]]] = {
        "a name of 300 bytes": lambda: [("file", long, features_file())],
        "a name of 200 × é": lambda: [("file", "é" * 200, features_file())],
        "a step of 300 bytes, two files": lambda: [("file", f"a/{long}", features), ("file", "b", features_file())],
        "a step of 200 × é, two files": lambda: [("file", "é" * 200, features), ("file", "b", features_file())],
        "a path of 100 steps, two files": lambda: [("file", "a/" * 100 + "b", features), ("file", "b", b"x")],
        "an unknown field": lambda: [("unknown", "a", b"x"), ("file", "a", features_file())],
        "5,000 empty files": lambda: [("file", f"{n}", b"") for n in range(5000)],
        "5,000 files of a byte": lambda: [("file", f"{n}", b"x") for n in range(5000)],
        "5,001 files": lambda: [("file", f"{n}", b"x") for n in range(5001)],
        "300 files in 255 folders each": lambda: [("file", f"{n}" + "/a" * 120, b"x") for n in range(300)],
        "the same name twice": lambda: [("file", "a", b"x"), ("file", "a", b"y")],
        "a name of control characters": lambda: [("file", "\x01\x7f\u202e", features_file()), ("file", "b", b"x")],
    }
    wrong = []
    for name, make in cases.items():
        reply = await server.target.upload(make(), server.attacker, timeout_s=90)
        if reply.status == 0 or reply.status >= 500:
            wrong.append(f"{name}: {reply.status or 'no reply'} {reply.code}")
    return nothing_of("odd names and numbers of parts", wrong, "taken, or refused with a reason", len(cases))


async def _hurt(server: OwnServer) -> Finding:
    """Bodies that are no form at all, or one that breaks off."""
    whole, content_type = form([("file", "a.h5", features_file())])
    random = secrets.token_bytes(4096)
    cases = {
        "cut off": (whole[: len(whole) // 2], content_type),
        "no boundary": (whole, "multipart/form-data"),
        "a boundary of 300": (whole, f"multipart/form-data; boundary={'x' * 300}"),
        "a quoted boundary": (whole, 'multipart/form-data; boundary="; boundary=a"'),
        "another boundary": (whole, "multipart/form-data; boundary=zzzz"),
        "JSON": (b"{}", "application/json"),
        "random bytes": (random, content_type),
        "nothing": (b"", content_type),
        "twice": (whole + whole, content_type),
        "bare line feeds": (whole.replace(b"\r\n", b"\n"), content_type),
        "nested": (whole.replace(b"\r\n\r\n", b"\r\nContent-Type: multipart/mixed; boundary=q\r\n\r\n"), content_type),
        "an encoding": (
            whole.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n", 1),
            content_type,
        ),
    }
    wrong = []
    for name, (body, kind) in cases.items():
        headers = {"Content-Type": kind}
        reply = await server.target.send("POST", "/v1/slides", key=server.attacker, headers=headers, body=body)
        if reply.status == 0 or reply.status >= 500:
            wrong.append(f"{name}: {reply.status or 'no reply'}")
    return nothing_of("bodies that are no form", wrong, "refused with a reason", len(cases))
