"""The largest JSON bodies of each route, a hundred in many shapes, while somebody else asks /livez."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable

from attacks.findings import Finding, at_most, nothing_of, percentile
from attacks.own_server import OwnServer
from attacks.sample_slides import ready_slide
from attacks.target import Reply
from attacks.watched_process import cpu_s, watched_livez

_BODIES = 100
_AT_ONCE = 4
_BODY_BYTES = 4 * 2**20 - 1024
_LIMIT_MS = 100.0
# A server that stands still for each of a hundred bodies would hold everybody up for an hour.
_GIVE_UP_S = 60.0
# 202: `{}` behind white space is a wish to encode.
_REFUSED = (202, 400, 401, 404, 409, 413, 422, 429, 503)
_KEYLESS_CPU_S = 2.0
_ESCAPE = "\\u0000"
Shape = Callable[[str], bytes]


async def attack(server: OwnServer, share: float) -> AsyncIterator[Finding]:
    """Each route with a key, then all without one."""
    slide = await ready_slide(server, server.attacker)
    count = max(len(_SHAPES), round(_BODIES * share))
    routes = ("/v1/chat/completions", f"/v1/slides/{slide}/questions", f"/v1/slides/{slide}/encode")
    yield await _quiet(server)
    yield await _keyless(server, routes, count)
    for path in routes:
        for found in await _flood(server, path, count):
            yield found


async def _quiet(server: OwnServer) -> Finding:
    """What /livez takes without any of this: what it takes with it is to be read beside that."""
    async with watched_livez(server.target) as waits:
        await asyncio.sleep(5)
    return at_most("control: /livez in peace, p99", percentile(waits.seconds, 99) * 1000, _LIMIT_MS, "ms")


async def _flood(server: OwnServer, path: str, count: int) -> list[Finding]:
    name = path.rsplit("/", 1)[-1]
    bodies = iter([(list(_SHAPES)[number % len(_SHAPES)], number) for number in range(count)])
    wrong: list[str] = []
    answered = 0

    async def client() -> None:
        nonlocal answered
        for shape, _ in bodies:
            reply = await _send(server, path, _SHAPES[shape](name), server.attacker)
            answered += reply.status != 0
            if reply.status not in _REFUSED:
                wrong.append(f"{shape}: {reply.status or 'no reply'}")

    async with watched_livez(server.target) as waits:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GIVE_UP_S):
                await asyncio.gather(*(client() for _ in range(_AT_ONCE)))
    waited_ms = percentile(waits.seconds, 99) * 1000
    if answered < count:
        wrong.append(f"only {answered} of {count} within {_GIVE_UP_S:.0f} s")
    return [
        at_most(f"{count} bodies of 4 MB, {name}: /livez p99", waited_ms, _LIMIT_MS, "ms"),
        nothing_of(f"{count} bodies of 4 MB, {name}: replies", wrong, "refused with a reason", count),
    ]


async def _keyless(server: OwnServer, routes: tuple[str, ...], count: int) -> Finding:
    """Nobody's bodies are not worth reading."""
    api, before, began = server.process("api"), cpu_s(server.process("api")), time.monotonic()
    shapes = list(_SHAPES.values())
    for number in range(count):
        path = routes[number % len(routes)]
        await _send(server, path, shapes[number % len(shapes)](path.rsplit("/", 1)[-1]), None)
        if time.monotonic() - began > _GIVE_UP_S:
            count = number + 1
            break
    limit = _KEYLESS_CPU_S * max(1.0, count / 100)
    return at_most(f"{count} bodies of 4 MB without a key: the API's CPU", cpu_s(api) - before, limit, "s")


async def _send(server: OwnServer, path: str, body: bytes, key: str | None) -> Reply:
    headers = {"Content-Type": "application/json"}
    return await server.target.send("POST", path, key=key, headers=headers, body=body, timeout_s=_GIVE_UP_S)


def _repeated(start: str, piece: str, end: str) -> bytes:
    """The pieces between start and end, with commas, up to the largest body."""
    count = (_BODY_BYTES - len(start) - len(end)) // (len(piece) + 1)
    return f"{start}{','.join([piece] * count)}{end}".encode()


def _with(route: str, field: str) -> str:
    """The beginning of a body of this route, up to the value of a field that it has."""
    begun = {
        "completions": '{"model": "demo", ',
        "questions": '{"question": "a", ',
        "encode": '{"priority": "urgent", ',
    }
    return f"{begun[route]}{field}"


def _content(route: str) -> str:
    """Up to the value of the field that holds the most."""
    fields = {
        "completions": '{"model": "demo", "messages": [{"role": "user", "content": ',
        "questions": '{"question": ',
        "encode": '{"encoder": ',
    }
    return fields[route]


def _ends(route: str) -> str:
    return "}]}" if route == "completions" else "}"


def _keys(route: str) -> bytes:
    count = _BODY_BYTES // 14
    return (_with(route, "") + ",".join(f'"k{number:07d}":0' for number in range(count)) + "}").encode()


def _messages(route: str) -> bytes:
    return _repeated(_with(route, '"messages": ['), '{"role":"user","content":""}', "]}")


def _parts(route: str) -> bytes:
    return _repeated(f"{_content(route)}[", '{"type":"text","text":""}', f"]{_ends(route)}")


_SHAPES: dict[str, Shape] = {
    "zeros in a list": lambda route: _repeated(f"{_content(route)}[", "0", f"]{_ends(route)}"),
    "zeros for a body": lambda route: _repeated("[", "0", "]"),
    "unknown keys": _keys,
    "messages": _messages,
    "parts": _parts,
    "nested lists": lambda route: b"[" * (_BODY_BYTES // 2) + b"]" * (_BODY_BYTES // 2),
    "nested objects": lambda route: b'{"a":' * (_BODY_BYTES // 7) + b"0" + b"}" * (_BODY_BYTES // 7),
    "nested in a field": lambda route: (
        f"{_content(route)}{'[' * (_BODY_BYTES // 2 - 200)}{']' * (_BODY_BYTES // 2 - 200)}{_ends(route)}"
    ).encode(),
    "a long text": lambda route: f'{_content(route)}"{"a" * (_BODY_BYTES - 200)}"{_ends(route)}'.encode(),
    "a text of escapes": lambda route: f'{_content(route)}"{_ESCAPE * (_BODY_BYTES // 6 - 50)}"{_ends(route)}'.encode(),
    "a number of digits": lambda route: f"{_content(route)}{'9' * (_BODY_BYTES - 200)}{_ends(route)}".encode(),
    "a fraction of digits": lambda route: f"{_content(route)}0.{'9' * (_BODY_BYTES - 200)}{_ends(route)}".encode(),
    "the same key": lambda route: _repeated("{", '"question":"a"', "}"),
    "white space": lambda route: b" " * _BODY_BYTES + json.dumps({}).encode(),
    "not UTF-8": lambda route: b"\xff" * _BODY_BYTES,
    "an endless stop": lambda route: _repeated(_with(route, '"stop": ["a"'), '"x"', "]}"),
    "escaped quotes": lambda route: _repeated(f'{_content(route)}["', '\\"\\\\\\"', f'"]{_ends(route)}'),
    "brackets in a text": lambda route: f'{_content(route)}"{"[{" * (_BODY_BYTES // 2 - 100)}"{_ends(route)}'.encode(),
    "few large numbers": lambda route: _repeated(f"{_content(route)}[", "9" * 4_000, f"]{_ends(route)}"),
    "few long texts": lambda route: _repeated(f"{_content(route)}[", f'"{"a" * 20_000}"', f"]{_ends(route)}"),
    "long keys": lambda route: _repeated("{", f'"{"k" * 50_000}":0', "}"),
    "exponents": lambda route: _repeated(f"{_content(route)}[", f"1{'0' * 40_000}e-40000", f"]{_ends(route)}"),
    "UTF-16": lambda route: json.dumps({"question": "a" * (_BODY_BYTES // 2 - 20)}).encode("utf-16-le"),
    "zero bytes": lambda route: bytes(_BODY_BYTES),
    "half a text": lambda route: f'{_content(route)}"{"a" * (_BODY_BYTES - 200)}'.encode(),
    "empty objects": lambda route: _repeated(f"{_content(route)}[", "{}", f"]{_ends(route)}"),
}
