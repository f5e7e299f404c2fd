"""The same slide uploaded, deleted, encoded, asked about and followed at once: an end state that agrees with itself."""

import asyncio
import random
from collections.abc import AsyncIterator

from attacks.findings import Finding, at_most, nothing_of
from attacks.own_server import OwnServer
from attacks.sample_slides import features_file

_CLIENTS, _STEPS = 8, 12
_EXPECTED = (0, 200, 202, 204, 404, 409, 413, 422, 429, 503)
_QUIET_WITHIN_S = 60.0


async def attack(server: OwnServer, share: float) -> AsyncIterator[Finding]:
    """Eight clients on two slides, then what is left of them."""
    contents = [features_file(), features_file()]
    wrong: list[str] = []
    tried = 0
    ids = [str((await server.target.upload_one("a.h5", it, server.attacker)).json["id"]) for it in contents]

    async def client(seed: int) -> None:
        nonlocal tried
        drawn = random.Random(seed)
        for _ in range(max(3, round(_STEPS * share))):
            which = drawn.randrange(len(ids))
            name, status = await _step(server, drawn, ids[which], contents[which])
            tried += 1
            if status not in _EXPECTED:
                wrong.append(f"{name}: {status}")

    await asyncio.gather(*(client(seed) for seed in range(_CLIENTS)))
    yield nothing_of("upload, delete, encode, ask at once", wrong, "no 5xx but 503", tried)
    yield await _consistent(server, ids, contents)
    yield await _gone(server, ids)


async def _step(server: OwnServer, drawn: random.Random, slide: str, content: bytes) -> tuple[str, int]:
    target, key, base = server.target, server.attacker, f"/v1/slides/{slide}"
    match drawn.choice(("upload", "upload", "delete", "ask", "encode", "features", "attach", "get", "list", "events")):
        case "upload":
            return "upload", (await target.upload_one("a.h5", content, key)).status
        case "delete":
            return "delete", (await target.send("DELETE", base, key=key)).status
        case "ask":
            return "ask", (await target.ask(slide, key, max_tokens=1)).status
        case "encode":
            return "encode", (await target.post(f"{base}/encode", {}, key)).status
        case "features":
            return "features", (await target.get(f"{base}/features", key)).status
        case "attach":
            return "attach", (await target.upload([("file", "a.h5", features_file())], key, f"{base}/features")).status
        case "events":
            return "events", (await target.get(f"{base}/events", key, timeout_s=3)).status
        case "list":
            return "list", (await target.get("/v1/slides", key)).status
        case _:
            return "get", (await target.get(base, key)).status


async def _consistent(server: OwnServer, ids: list[str], contents: list[bytes]) -> Finding:
    """Sent once more, each gets ready and can be asked about."""
    wrong = []
    for slide, content in zip(ids, contents, strict=True):
        await server.target.upload_one("a.h5", content, server.attacker)
        await server.target.post(f"/v1/slides/{slide}/encode", {}, server.attacker)
        state = await server.target.wait_until_encoded(slide, server.attacker, _QUIET_WITHIN_S)
        answer = await server.target.ask(slide, server.attacker, max_tokens=1)
        if (state, answer.status) != ("ready", 200):
            wrong.append(f"{state or 'unknown'}, {answer.status} {answer.code}")
    return nothing_of("after the race, uploaded once more", wrong, "ready and answered", len(ids))


async def _gone(server: OwnServer, ids: list[str]) -> Finding:
    """Deleted, nothing stays on the disk."""
    for slide in ids:
        await server.target.send("DELETE", f"/v1/slides/{slide}", key=server.attacker)
    await asyncio.sleep(6)  # a reconciler's round
    left = [it for slide in ids for it in server.slide_folder("attacker", slide).rglob("*") if it.is_file()]
    return at_most("after the race, deleted: files left", len(left), 0, "")
