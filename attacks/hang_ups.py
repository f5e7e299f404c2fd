"""Clients that hang up, a thousand in each way: nothing of theirs may stay, neither a socket nor a running answer."""

import asyncio
import contextlib
import json
import random
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from attacks.findings import Finding
from attacks.own_server import OwnServer
from attacks.sample_slides import features_file, ready_slide
from attacks.target import Wire, form, request_head
from attacks.watched_process import close_wait

_HANG_UPS = 1000
_AT_ONCE = 24
_GONE_AFTER_S = 2.0
_ANSWER_WITHIN_S = 20.0
_LOOKS, _BETWEEN_LOOKS_S = 4, 0.6
# The worker's own connections, an answer that ends this moment: never one for each hang-up.
_DESCRIPTORS = 24


@dataclass(frozen=True)
class Form:
    """A request to break off: once it is sent, or once `until` has come back."""

    name: str
    request: Callable[[], bytes]
    until: bytes = b""


async def attack(server: OwnServer, share: float) -> AsyncIterator[Finding]:
    """Each form in turn."""
    slide = await ready_slide(server, server.attacker)
    for it in _forms(server, slide):
        yield await _many(server, it, slide, max(_AT_ONCE, round(_HANG_UPS * share)))


def _forms(server: OwnServer, slide: str) -> list[Form]:
    def post(path: str, content: object) -> bytes:
        body = json.dumps(content).encode()
        headers = {"Content-Type": "application/json"}
        return request_head("POST", path, key=server.attacker, headers=headers, body=body) + body

    def native(stream: bool) -> Callable[[], bytes]:
        return lambda: post(f"/v1/slides/{slide}/questions", {"question": secrets.token_hex(4), "stream": stream})

    def chat(stream: bool) -> Callable[[], bytes]:
        parts = [{"type": "slide", "slide": {"id": slide}}, {"type": "text", "text": secrets.token_hex(4)}]
        options = {"model": "demo", "stream": stream, "messages": [{"role": "user", "content": parts}]}
        return lambda: post("/v1/chat/completions", options)

    def get(path: str) -> Callable[[], bytes]:
        # Events later than that there are none, so the stream stays open for a while.
        return lambda: request_head("GET", path, key=server.attacker, headers={"Last-Event-ID": "99999999999999-0"})

    def half_upload() -> bytes:
        body, kind = form([("file", "a.h5", features_file())])
        head = request_head("POST", "/v1/slides", key=server.attacker, headers={"Content-Type": kind}, body=body)
        return head + body[: len(body) // 2]

    def whole_upload() -> bytes:
        body, kind = form([("file", "a.svs", b"II*\0" + secrets.token_bytes(64))])
        return request_head("POST", "/v1/slides", key=server.attacker, headers={"Content-Type": kind}, body=body) + body

    return [
        Form("question, stream, before the first byte", native(True)),
        Form("question, stream, mid-stream", native(True), b"event: token"),
        Form("question, no stream, at once", native(False)),
        Form("question, no stream, while it is answered", native(False), b"never"),
        Form("chat, stream, before the first byte", chat(True)),
        Form("chat, stream, mid-stream", chat(True), b'"content"'),
        Form("chat, no stream, at once", chat(False)),
        Form("chat, no stream, while it is answered", chat(False), b"never"),
        Form("event stream", get(f"/v1/slides/{slide}/events"), b"HTTP/1.1"),
        Form("features", get(f"/v1/slides/{slide}/features"), b"HTTP/1.1"),
        Form("half an upload", half_upload),
        Form("an upload while it is looked at", whole_upload),
    ]


async def _many(server: OwnServer, form: Form, slide: str, count: int) -> Finding:
    api = server.process("api")
    before, sockets_before = api.num_fds(), close_wait(api)
    drawn = random.Random(1)
    waits = iter([drawn.random() for _ in range(count)])
    refused = 0

    async def client() -> None:
        nonlocal refused
        for share in waits:
            refused += await _one(server, form, share)

    await asyncio.gather(*(client() for _ in range(_AT_ONCE)))
    await asyncio.sleep(_GONE_AFTER_S)
    sockets = close_wait(api) - sockets_before
    running, more = await _left_running(server), api.num_fds() - before
    answer = await server.target.ask(slide, server.attacker, timeout_s=_ANSWER_WITHIN_S)
    held = sockets <= 0 and running == 0 and more <= _DESCRIPTORS and answer.status == 200
    seen = f"{sockets} in CLOSE-WAIT, {running} running, {more:+d} descriptors, then {answer.status or 'no answer'}"
    seen += f" ({refused} of {count} were refused)" if refused else ""
    return Finding(f"{count} hang-ups: {form.name}", seen, "0, 0, ≤ +24 after 2 s, then 200", held)


async def _left_running(server: OwnServer) -> int:
    """The fewest of a few looks: the API itself asks vLLM for a token every now and then, and an answer that nobody
    waits for runs for much longer."""
    fewest = server.running_in_llm()
    for _ in range(_LOOKS):
        if fewest:
            await asyncio.sleep(_BETWEEN_LOOKS_S)
            fewest = min(fewest, server.running_in_llm())
    return fewest


async def _one(server: OwnServer, form: Form, share: float) -> bool:
    """Whether it was refused instead: then there was nothing to hang up on."""
    wire = await server.target.connect()
    try:
        with contextlib.suppress(ConnectionError):
            await wire.write(form.request())
            if not form.until:
                await asyncio.sleep(share * 0.1)
                return False
            return await _read_until(wire, form.until, 0.4 + share if form.until == b"never" else 20)
        return False
    finally:
        # A reset and an end in peace are two ways to be gone.
        wire.hang_up() if share < 0.5 else wire.close()


async def _read_until(wire: Wire, wanted: bytes, timeout_s: float) -> bool:
    seen = b""
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(timeout_s):
            while wanted not in seen:
                piece = await wire.reader.read(65536)
                if not piece:
                    break
                seen += piece
    return seen.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))
