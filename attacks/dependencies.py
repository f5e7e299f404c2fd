"""vLLM stopped and killed, Redis read-only, full and stopped: what can go on goes on, the rest says why."""

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator

import psutil  # type: ignore[import-untyped]
from redis import Redis

from attacks.findings import Finding
from attacks.own_server import OwnServer
from attacks.sample_slides import features_file, pixel_slide, ready_slide
from attacks.target import request_head

_SEEN_WITHIN_S = 10.0
_REFUSED_WITHIN_S = 20.0
# A stop may be taken for a replica that is replaced until it has been seen twice.
_KNOWN_AFTER_S = 12.0
_BACK_WITHIN_S = 300.0
_STOPPED_S, _UPLOAD_EVERY_S = 300.0, 15.0
_AT_ONCE_S, _NOTICED_WITHIN_S = 3.0, 20.0


async def attack(server: OwnServer, share: float) -> AsyncIterator[Finding]:
    """One after the other, each healed before the next."""
    slide = await ready_slide(server, server.attacker)
    for found in await _llm(server, slide, "stopped", lambda process: process.suspend()):
        yield found
    if server.stand_in is not None:  # vLLM itself is killed and started again by `eyepiece up` before that
        for found in await _llm_stopped_for_long(server, slide, _STOPPED_S * max(0.1, share)):
            yield found
    for found in await _llm(server, slide, "killed", lambda process: process.kill()):
        yield found
    for found in await _redis(server, slide, "read-only", _read_only):
        yield found
    for found in await _redis(server, slide, "full", _full):
        yield found
    yield await _redis_stopped(server)


async def _llm(server: OwnServer, slide: str, how: str, hurt: Callable[[psutil.Process], None]) -> list[Finding]:
    """Uploads and encodes go on without the language model; questions are refused, and soon."""
    process, began = server.llm_process(), time.monotonic()
    hurt(process)
    try:
        told = await _unready(server)
        upload = await server.target.upload_one("a.h5", features_file(), server.attacker, timeout_s=30)
        state = await server.target.wait_until_encoded(str(upload.json.get("id")), server.attacker, 60)
        listed = await server.target.get("/v1/slides", server.attacker, timeout_s=10)
        await asyncio.sleep(max(0.0, _KNOWN_AFTER_S - (time.monotonic() - began)))
        asked = await server.target.ask(slide, server.attacker, timeout_s=_REFUSED_WITHIN_S)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        if server.stand_in is not None and how == "killed":
            server.stand_in.process.wait()
            server.stand_in.start()
    back_s = await _ready_again(server)
    name = f"vLLM {how}"
    refused = asked.status == 503 and asked.code.startswith("language_model")
    return [
        Finding(f"{name}: /readyz says so", told, "within 10 s", told.startswith("after")),
        Finding(
            f"{name}: upload and list",
            f"{upload.status}, {state or 'unknown'}, list {listed.status}",
            "202, ready, 200",
            (upload.status, state, listed.status) == (202, "ready", 200),
        ),
        Finding(
            f"{name}: question", f"{asked.status or 'no reply'} {asked.code} after {asked.took_s:.0f} s",
            f"503 language_model_… within {_REFUSED_WITHIN_S:.0f} s", refused,
        ),
        Finding(f"{name}: ready again", f"{back_s:.0f} s", f"≤ {_BACK_WITHIN_S:.0f} s", back_s <= _BACK_WITHIN_S),
    ]  # fmt: skip


async def _llm_stopped_for_long(server: OwnServer, slide: str, lasting_s: float) -> list[Finding]:
    """Slides are taken and encoded all the time; who asks is told why not, also who asked as it stopped."""
    process, began = server.llm_process(), time.monotonic()
    process.suspend()
    states, refusals, slowest_s = [], [], 0.0
    try:
        first = await server.target.ask(slide, server.attacker, timeout_s=4 * _REFUSED_WITHIN_S)
        while time.monotonic() - began < lasting_s:
            await asyncio.sleep(_UPLOAD_EVERY_S)
            upload = await server.target.upload_one("a.svs", pixel_slide(), server.attacker, timeout_s=30)
            asked = await server.target.ask(slide, server.attacker, timeout_s=_REFUSED_WITHIN_S)
            state = await server.target.wait_until_encoded(str(upload.json.get("id")), server.attacker, 60)
            states.append(f"{upload.status} {state}")
            refusals.append(f"{asked.status} {asked.code}")
            slowest_s = max(slowest_s, asked.took_s)
        reason = str(asked.json.get("detail"))
    finally:
        process.send_signal(signal.SIGCONT)
    back_s = await _ready_again(server)
    name = f"vLLM stopped for {lasting_s:.0f} s"
    told = f"{first.status or 'no reply'} {first.code} after {first.took_s:.1f} s"
    seen = f"{', '.join(sorted(set(refusals)))}, after {slowest_s:.1f} s at most: {reason}"
    refused = all(it == "503 language_model_unavailable" for it in refusals)
    return [
        Finding(
            f"{name}: {len(states)} uploads", ", ".join(sorted(set(states))), "202 ready", set(states) == {"202 ready"}
        ),
        Finding(f"{name}: questions", seen, "503 with the reason, at once", refused and slowest_s <= _AT_ONCE_S),
        Finding(
            f"{name}: the question that was asked as it stopped",
            told,
            f"503 within {_NOTICED_WITHIN_S:.0f} s",
            first.status == 503 and first.took_s <= _NOTICED_WITHIN_S,
        ),
        Finding(f"{name}: ready again", f"{back_s:.0f} s", f"≤ {_BACK_WITHIN_S:.0f} s", back_s <= _BACK_WITHIN_S),
    ]


async def _redis(
    server: OwnServer, slide: str, how: str, hurting: Callable[[Redis], contextlib.AbstractContextManager[None]]
) -> list[Finding]:
    """An answer that is half way when Redis stops taking writes still arrives; /readyz says that something is amiss."""
    redis = Redis.from_url(server.environment_of_api()["EYEPIECE_REDIS_URL"])
    async with _half_an_answer(server, slide) as rest:
        with hurting(redis):
            told_soon = asyncio.ensure_future(_unready(server))
            last = await rest()
            told = await told_soon
            upload = await server.target.upload_one("a.h5", features_file(), server.attacker, timeout_s=30)
            listed = await server.target.get("/v1/slides", server.attacker, timeout_s=10)
    redis.close()
    back_s = await _ready_again(server)
    state = await _mended(server, upload.json.get("id"))
    name = f"Redis {how}"
    return [
        Finding(f"{name}: /readyz says so", told, "within 10 s", told.startswith("after")),
        Finding(f"{name}: an answer that is finished", last, "done", last.startswith("done")),
        Finding(
            f"{name}: upload, list",
            f"{upload.status} {upload.code}, {listed.status}; afterwards {state}",
            "no 500; what was taken is encoded afterwards",
            upload.status in (200, 202, 503, 507) and listed.status in (200, 503) and state in ("ready", "not taken"),
        ),
        Finding(f"{name}: ready again", f"{back_s:.0f} s", "≤ 60 s", back_s <= 60),
    ]


async def _redis_stopped(server: OwnServer) -> Finding:
    """A Redis that hangs must not make everything hang."""
    process = next(it for it in server.up.children() if "valkey" in it.name() or "redis" in it.name())
    process.suspend()
    try:
        alive = await server.target.get("/livez", timeout_s=5)
        listed = await server.target.get("/v1/slides", server.attacker, timeout_s=_REFUSED_WITHIN_S)
        told = await _unready(server)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()
    back_s = await _ready_again(server)
    held = alive.status == 200 and listed.status in (200, 503) and told.startswith("after") and back_s <= 120
    seen = f"/livez {alive.status}, list {listed.status} after {listed.took_s:.0f} s, {told}, back after {back_s:.0f} s"
    return Finding("Redis stopped", seen, "200, 200 or 503 within 20 s, said within 10 s, back within 120 s", held)


@contextlib.contextmanager
def _read_only(redis: Redis) -> Iterator[None]:
    """A replica of nothing."""
    redis.replicaof("127.0.0.1", 1)
    try:
        yield
    finally:
        redis.replicaof("NO", "ONE")


@contextlib.contextmanager
def _full(redis: Redis) -> Iterator[None]:
    """No room, and nothing that may go."""
    before = redis.config_get("maxmemory*")
    redis.config_set("maxmemory-policy", "noeviction")
    redis.config_set("maxmemory", "1mb")
    try:
        yield
    finally:
        for name in ("maxmemory", "maxmemory-policy"):
            redis.config_set(name, str(before[name]))


@contextlib.asynccontextmanager
async def _half_an_answer(server: OwnServer, slide: str) -> AsyncIterator[Callable[[], "asyncio.Future[str]"]]:
    """A streamed question with its first token read; the function reads on to the last event."""
    body = json.dumps({"question": "What is this?", "max_tokens": 20}).encode()
    headers = {"Content-Type": "application/json"}
    path = f"/v1/slides/{slide}/questions"
    async with server.target.connection() as wire:
        await wire.write(request_head("POST", path, key=server.attacker, headers=headers, body=body) + body)
        async with asyncio.timeout(60):
            await wire.reader.readuntil(b"event: token")

        async def read_on() -> str:
            seen = b""
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(60):
                    while piece := await wire.reader.read(65536):
                        seen += piece
            event = seen.rpartition(b"event: ")[2]
            name = event.split(b"\n", 1)[0].strip().decode()
            code = event.partition(b'"code":')[2][:40].decode(errors="replace")
            return f"{name} {code}".strip() or "nothing"

        yield lambda: asyncio.ensure_future(read_on())


async def _unready(server: OwnServer) -> str:
    """`after n s` with what /readyz names, or that it did not."""
    began = time.monotonic()
    while time.monotonic() - began < _SEEN_WITHIN_S:
        reply = await server.target.get("/readyz", timeout_s=_SEEN_WITHIN_S)
        states = reply.json.get("checks", {})
        amiss = [name for name, state in states.items() if state != "ok"]
        if amiss or reply.status == 503:
            return f"after {time.monotonic() - began:.0f} s: {reply.status}, {', '.join(amiss)}"
        await asyncio.sleep(0.3)
    return "not within 10 s"


async def _ready_again(server: OwnServer) -> float:
    """Seconds until everything is well again."""
    began = time.monotonic()
    while time.monotonic() - began < _BACK_WITHIN_S:
        reply = await server.target.get("/readyz", timeout_s=10)
        if reply.status == 200 and all(it == "ok" for it in reply.json.get("checks", {}).values()):
            return time.monotonic() - began
        await asyncio.sleep(0.5)
    return float("inf")


async def _mended(server: OwnServer, slide_id: str | None) -> str:
    """What became of an upload that was taken."""
    if slide_id is None:
        return "not taken"
    return await server.target.wait_until_encoded(slide_id, server.attacker, 60) or "unknown"
