"""One tenant floods whatever there is a limited number of; the other's upload and question are timed beside it."""

import asyncio
import contextlib
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from attacks.findings import Finding
from attacks.own_server import OwnServer
from attacks.sample_slides import features_file, pixel_slide, ready_slide
from attacks.target import Wire, form, request_head

_ROUNDS = 4
# A flood needs this long to fill what it fills.
_FLOODED_AFTER_S = 1.5
_GIVE_UP_S = 60.0
# Below it a ratio is the machine's own noise.
_NOISE_S = 0.5
Flood = Callable[[OwnServer, str], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Times:
    """Median seconds of the other tenant's upload (to the reply), question and encode; refusals count as never."""

    upload_s: float
    question_s: float
    encode_s: float


async def attack(server: OwnServer, share: float) -> AsyncIterator[Finding]:
    """Each flood alone, then all of them."""
    own = await ready_slide(server, server.attacker, pixel_slide())
    theirs = await ready_slide(server, server.other)
    rounds = max(2, round(_ROUNDS * share))
    alone = await _timed(server, theirs, rounds)
    floods: dict[str, list[Flood]] = {name: [flood] for name, flood in _FLOODS.items()}
    floods["all of these"] = list(_FLOODS.values())
    for name, several in floods.items():
        async with _flooding(server, own, several):
            beside = await _timed(server, theirs, rounds)
        for found in _compared(name, alone, beside):
            yield found
        await _settled(server)


def _compared(name: str, alone: Times, beside: Times) -> list[Finding]:
    look_s = alone.upload_s

    def one(what: str, before_s: float, seen_s: float, limit_s: float) -> Finding:
        seen = "refused, or not in a minute" if seen_s >= _GIVE_UP_S else f"{seen_s:.2f} s"
        return Finding(
            f"flood of {name}: the other's {what}",
            seen,
            (f"≤ {limit_s:.1f} s (alone {before_s:.2f})"),
            seen_s <= limit_s,
        )

    return [
        one("upload", alone.upload_s, beside.upload_s, 2 * alone.upload_s + look_s + _NOISE_S),
        one("question", alone.question_s, beside.question_s, 2 * alone.question_s + look_s + _NOISE_S),
        # A job that runs is not broken off: one of them may be waited for.
        one("encode", alone.encode_s, beside.encode_s, 3 * alone.encode_s + look_s + _NOISE_S),
    ]


async def _timed(server: OwnServer, slide: str, rounds: int) -> Times:
    uploads, questions, encodes = [], [], []
    for _ in range(rounds):
        began = time.monotonic()
        reply = await server.target.upload_one("a.svs", pixel_slide(), server.other, timeout_s=_GIVE_UP_S)
        taken = reply.status == 202
        uploads.append(reply.took_s if taken else _GIVE_UP_S)
        answer = await server.target.ask(slide, server.other, max_tokens=4, timeout_s=_GIVE_UP_S)
        questions.append(answer.took_s if answer.status == 200 else _GIVE_UP_S)
        if taken:
            slide_id = str(reply.json["id"])
            state = await server.target.wait_until_encoded(slide_id, server.other, _GIVE_UP_S)
            encodes.append(time.monotonic() - began if state == "ready" else _GIVE_UP_S)
            await server.target.send("DELETE", f"/v1/slides/{slide_id}", key=server.other)
        else:
            encodes.append(_GIVE_UP_S)
            await asyncio.sleep(1)
        if _GIVE_UP_S in (uploads[-1], questions[-1], encodes[-1]):
            break  # another minute would not tell more
    worst = [statistics.median(it) if _GIVE_UP_S not in it else _GIVE_UP_S for it in (uploads, questions, encodes)]
    return Times(*worst)


@contextlib.asynccontextmanager
async def _flooding(server: OwnServer, own: str, floods: list[Flood]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(flood(server, own)) for flood in floods]
    try:
        await asyncio.sleep(_FLOODED_AFTER_S)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _settled(server: OwnServer) -> None:
    """What the flood left in the queue is thrown away, so that the next one starts on an idle server."""
    listed = (await server.target.get("/v1/slides?limit=100", server.attacker)).json.get("data", [])
    for slide in listed:
        if slide["status"] in ("queued", "encoding"):
            await server.target.send("DELETE", f"/v1/slides/{slide['id']}", key=server.attacker)
    await asyncio.sleep(1)


async def _idle_uploads(server: OwnServer, own: str) -> None:
    """Forty uploads that send their beginning, and then a byte every few seconds."""
    wires: list[Wire] = []
    body, kind = form([("file", "a.svs", secrets.token_bytes(100_000))])
    head = request_head("POST", "/v1/slides", key=server.attacker, headers={"Content-Type": kind}, body=body)
    try:
        for _ in range(40):
            wires.append(await server.target.connect())
            await wires[-1].write(head + body[:1000])
        for at in range(1000, 2000):
            await asyncio.sleep(3)
            for wire in wires:
                with contextlib.suppress(ConnectionError):
                    await wire.write(body[at : at + 1])
    finally:
        for wire in wires:
            wire.hang_up()


async def _garbage_forms(server: OwnServer, own: str) -> None:
    """Forms of twenty files that are no slides, each of which is looked at."""

    async def again() -> None:
        files = [("file", f"{n}.svs", b"II*\0" + secrets.token_bytes(400)) for n in range(20)]
        await server.target.upload(files, server.attacker)

    await _endlessly(again, 6)


async def _thumbnails(server: OwnServer, own: str) -> None:
    """Sixty at once."""

    async def again() -> None:
        await server.target.get(f"/v1/slides/{own}/thumbnail?max_px={16 + secrets.randbelow(1000)}", server.attacker)

    await _endlessly(again, 60)


async def _tiles(server: OwnServer, own: str) -> None:
    """A hundred at once, as from viewers that never rest."""

    async def again() -> None:
        path = f"/v1/slides/{own}/tiles/{secrets.randbelow(11)}/{secrets.randbelow(2)}_{secrets.randbelow(2)}.jpg"
        await server.target.get(path, server.attacker)

    await _endlessly(again, 100)


async def _urgent_jobs(server: OwnServer, own: str) -> None:
    """Slides that are wanted at once, always again."""

    async def again() -> None:
        reply = await server.target.upload_one("a.svs", pixel_slide(), server.attacker)
        if "id" in reply.json:
            await server.target.post(f"/v1/slides/{reply.json['id']}/encode", {"priority": "urgent"}, server.attacker)
        await asyncio.sleep(0.3)

    await _endlessly(again, 2)


async def _large_features(server: OwnServer, own: str) -> None:
    """Features of many tiles, which are little to send and much to encode."""

    async def again() -> None:
        await server.target.upload_one("a.h5", features_file(6_000), server.attacker)
        await asyncio.sleep(2)

    await _endlessly(again, 1)


async def _questions(server: OwnServer, own: str) -> None:
    """Eighty long answers at once."""

    async def again() -> None:
        await server.target.ask(own, server.attacker, max_tokens=200, stream=True)
        await asyncio.sleep(0.2)

    await _endlessly(again, 80)


async def _followers(server: OwnServer, own: str) -> None:
    """Three hundred event streams."""

    async def again() -> None:
        headers = {"Last-Event-ID": "99999999999999-0"}
        await server.target.get(f"/v1/slides/{own}/events", server.attacker, headers=headers)
        await asyncio.sleep(0.5)

    await _endlessly(again, 300)


async def _endlessly(again: Callable[[], Awaitable[None]], at_once: int) -> None:
    async def one() -> None:
        while True:
            with contextlib.suppress(OSError):
                await again()

    await asyncio.gather(*(one() for _ in range(at_once)))


_FLOODS: dict[str, Flood] = {
    "idle uploads": _idle_uploads,
    "garbage forms": _garbage_forms,
    "thumbnails": _thumbnails,
    "tiles": _tiles,
    "urgent jobs": _urgent_jobs,
    "large features": _large_features,
    "questions": _questions,
    "event followers": _followers,
}
