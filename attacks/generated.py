"""Requests made at random from the OpenAPI document, and slides damaged at random: refused with a reason, or taken."""

import json
import random
import time
from collections.abc import AsyncIterator
from typing import Any

from attacks.findings import Finding, nothing_of
from attacks.own_server import OwnServer
from attacks.sample_slides import features_file, pixel_slide, ready_slide
from attacks.target import form

_REQUESTS, _SLIDES, _FEATURES = 600, 40, 40
_LEAK = ("Traceback", "/home/", "/tmp/", "/usr/", "site-packages", "pydantic", ".py", "redis://", "0x7f")  # noqa: S108 - looked for, not used
_JUNK: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**63,
    10**400,
    1e308,
    float("nan"),
    "",
    " ",
    "\x00",
    "\ud800",
    "é" * 300,
    "a" * 70_000,
    "<image>" * 50,
    "../../etc/passwd",
    "$(id)",
    "' OR 1=1 --",
    [],
    {},
    [[]],
    {"": None},
    [None] * 50,
)
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY")
_HEADERS = ("Accept", "Range", "If-None-Match", "If-Modified-Since", "Last-Event-ID", "Content-Type", "Accept-Encoding",
            "Content-Encoding", "Expect", "X-Request-ID", "X-Slide-Id", "traceparent", "Cookie", "Referer")  # fmt: skip


async def attack(server: OwnServer, share: float) -> AsyncIterator[Finding]:
    """First requests, then slides and features."""
    drawn = random.Random(int(time.time()))
    own = await ready_slide(server, server.attacker)
    yield await _requests(server, own, drawn, round(_REQUESTS * share))
    yield await _damaged(server, "slides", pixel_slide(), drawn, round(_SLIDES * share) or 2)
    yield await _damaged(server, "features", features_file(), drawn, round(_FEATURES * share) or 2)


async def _requests(server: OwnServer, own: str, drawn: random.Random, count: int) -> Finding:
    document = (await server.target.get("/openapi.json", server.attacker)).json
    paths = list(document.get("paths", {})) or ["/v1/slides", "/v1/slides/{slide_id}", "/v1/chat/completions"]
    wrong = []
    for _ in range(count):
        path = _filled(drawn.choice(paths), own, drawn)
        method, headers = drawn.choice(_METHODS), _headers(drawn)
        body = _body(drawn)
        if method == "DELETE" and own in path:
            continue
        reply = await server.target.send(method, path, key=server.attacker, headers=headers, body=body, timeout_s=30)
        leak = next((it for it in _LEAK if it.encode() in reply.body and "openapi" not in path), None)
        if reply.status in (500, 502) or (leak and reply.status >= 400):
            wrong.append(f"{method} {path.replace(own, '…')[:40]!r} {body[:60]!r}: {reply.status} {leak or ''}")
    return nothing_of("requests made at random", wrong, "no 500, no path or trace in an error", count)


def _filled(path: str, own: str, drawn: random.Random) -> str:
    values = (own, own, own, "0" * 64, "x", "%00", "%ff", "conv_" + "a" * 22)
    for name in ("{slide_id}", "{conversation_id}", "{model}", "{model_id}", "{id}"):
        path = path.replace(name, drawn.choice(values))
    query = ("", "", "?limit=0", "?limit=-1", "?limit=1e9", "?cursor=%00", "?cursor=" + "a" * 9000, "?max_px=99999999",
             "?max_px=16.5", "?unknown=1", "?" + "a=b&" * 3000, "?%ff=%fe")  # fmt: skip
    return path + drawn.choice(query)


def _headers(drawn: random.Random) -> dict[str, str]:
    values = ("", "*", "bytes=0-0", "bytes=-1", "bytes=9999999999-", "bytes=0-,0-,0-", "gzip", "100-continue",
              "\x80é", "a" * 5000, "application/json; charset=utf-16", "text/event-stream", '"x"',
              "00-" + "0" * 32 + "-x-01")  # fmt: skip
    chosen = {drawn.choice(_HEADERS): drawn.choice(values) for _ in range(drawn.randrange(3))}
    return {"Content-Type": "application/json", **chosen}


def _body(drawn: random.Random) -> bytes:
    names = ("model", "messages", "stream", "question", "conversation_id", "max_tokens", "temperature", "seed", "stop",
             "n", "encoder", "mpp", "priority", "source", "stream_options", "tools", "unknown", "top_p")  # fmt: skip
    good: dict[str, Any] = {"model": "demo", "question": "What?", "max_tokens": 1, "stream": False}
    if drawn.random() < 0.1:
        return bytes(drawn.randrange(256) for _ in range(drawn.randrange(40)))
    chosen = {name: good[name] for name in good if drawn.random() < 0.5}
    chosen |= {drawn.choice(names): _value(drawn) for _ in range(drawn.randrange(4))}
    return json.dumps(drawn.choice((chosen, chosen, chosen, drawn.choice(_JUNK)))).encode(errors="replace")


def _value(drawn: random.Random) -> Any:
    if drawn.random() < 0.3:
        return [{"role": drawn.choice(("user", "system", "tool", 1)), "content": drawn.choice(_JUNK)}]
    return drawn.choice(_JUNK)


async def _damaged(server: OwnServer, kind: str, good: bytes, drawn: random.Random, count: int) -> Finding:
    wrong = []
    for _ in range(count):
        content = _hurt(good, drawn)
        reply = await server.target.upload_one("a.svs", content, server.attacker, timeout_s=60)
        slide_id = reply.json.get("id")
        if reply.status == 0 or reply.status >= 500 or any(it.encode() in reply.body for it in _LEAK):
            wrong.append(f"{reply.status or 'no reply'} {reply.code}")
        if slide_id:
            state = await server.target.wait_until_encoded(slide_id, server.attacker, 60)
            slide = (await server.target.get(f"/v1/slides/{slide_id}", server.attacker)).json
            code = (slide.get("error") or {}).get("code")
            if state not in ("ready", "failed") or code == "internal_error":
                wrong.append(f"stays {state}, {code}")
            await server.target.send("DELETE", f"/v1/slides/{slide_id}", key=server.attacker)
    return nothing_of(f"damaged {kind}", wrong, "refused or failed with a reason, or encoded", count)


def _hurt(good: bytes, drawn: random.Random) -> bytes:
    content = bytearray(good)
    match drawn.randrange(5):
        case 0:
            del content[drawn.randrange(len(content)) :]
        case 1:
            for _ in range(20):
                content[drawn.randrange(len(content))] ^= 1 << drawn.randrange(8)
        case 2:
            for _ in range(8):
                content[drawn.randrange(min(len(content), 2048))] = drawn.randrange(256)
        case 3:
            start, size = drawn.randrange(len(content)), drawn.randrange(1, 512)
            content[start : start + size] = drawn.randbytes(size)
        case _:
            start = drawn.randrange(len(content))
            del content[start : start + drawn.randrange(1, 512)]
    return bytes(content) + form([])[0][:8]
