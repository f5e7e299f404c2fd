"""Files of the data folder damaged while the server runs: only what they belong to suffers, and it says so."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from redis import Redis

from attacks.findings import Finding, nothing_of
from attacks.own_server import OwnServer
from attacks.sample_slides import features_file, ready_slide


async def attack(server: OwnServer, share: float) -> AsyncIterator[Finding]:
    """Records, embeddings, features, sources, keys."""
    for one in (_records, _swapped, _embedding, _source, _key_files, _other_file_kinds):
        yield await one(server)


def _damages() -> dict[str, Callable[[Path], None]]:
    def changed(**fields: object) -> Callable[[Path], None]:
        def change(path: Path) -> None:
            path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

        return change

    return {
        "empty": lambda path: path.write_bytes(b"") and None,
        "half": lambda path: path.write_bytes(path.read_bytes()[:50]) and None,
        "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x00") and None,
        "of a newer release": changed(a_field_of_tomorrow=1),
        "of another type": changed(size_bytes="many"),
        "a list": lambda path: path.write_text("[]") and None,
        "of another tenant": changed(tenant="other"),
        "of another slide": changed(id="0" * 64),
        "of an encoder like a path": changed(encoder_id="../../../../keys"),
    }


async def _records(server: OwnServer) -> Finding:
    """Each damage to a slide of its own: the list still shows a good one, and the damaged one can be deleted."""
    wrong = []
    good = await ready_slide(server, server.attacker)
    for name, damage in _damages().items():
        content = features_file()
        slide = await ready_slide(server, server.attacker, content)
        damage(server.slide_folder("attacker", slide) / "slide.json")
        listed = await server.target.get("/v1/slides?limit=100", server.attacker)
        got = await server.target.get(f"/v1/slides/{slide}", server.attacker)
        asked = await server.target.ask(slide, server.attacker, max_tokens=1)
        deleted = await server.target.send("DELETE", f"/v1/slides/{slide}", key=server.attacker)
        again = await server.target.upload_one("a.h5", content, server.attacker)
        state = await server.target.wait_until_encoded(slide, server.attacker, 30)
        if listed.status != 200 or good not in {it["id"] for it in listed.json["data"]}:
            wrong.append(f"{name}: list {listed.status}")
        if got.status == 500 or asked.status == 500:
            wrong.append(f"{name}: get {got.status}, ask {asked.status}")
        if got.status == 200 and got.json["id"] != slide:
            wrong.append(f"{name}: served as {got.json['id'][:6]}")
        if deleted.status not in (204, 404):
            wrong.append(f"{name}: delete {deleted.status}")
        if state != "ready":
            wrong.append(f"{name}: uploaded again {again.status}, {state or 'unknown'}")
        await server.target.send("DELETE", f"/v1/slides/{slide}", key=server.attacker)
        server_folder = server.slide_folder("attacker", slide)
        if wrong and server_folder.exists():
            (server_folder / "slide.json").unlink(missing_ok=True)  # what is broken once must not show again below
    return nothing_of("slide.json damaged", wrong, "only that slide suffers, and can be deleted", len(_damages()))


async def _swapped(server: OwnServer) -> Finding:
    """Two slides' embeddings exchanged: an answer about the wrong slide is the worst there is."""
    slides = [await ready_slide(server, server.attacker) for _ in range(2)]
    paths = [next((server.slide_folder("attacker", it) / "embeddings").iterdir()) for it in slides]
    contents = [it.read_bytes() for it in paths]
    for path, content in zip(paths, reversed(contents), strict=True):
        path.write_bytes(content)
    _forget_cached(server)
    wrong = []
    for slide in slides:
        answer = await server.target.ask(slide, server.attacker, max_tokens=1)
        if answer.status == 200:
            wrong.append("answered from another slide's embedding")
        elif answer.status == 500:
            wrong.append("500")
    return nothing_of("embeddings of two slides exchanged", wrong, "not answered from", len(slides))


async def _embedding(server: OwnServer) -> Finding:
    """One bit in the middle of the tensor, one in the head, a cut."""
    damages: dict[str, Callable[[bytearray], None]] = {
        "a bit of the tensor": lambda content: content.__setitem__(len(content) // 2, content[len(content) // 2] ^ 64),
        "the last bit": lambda content: content.__setitem__(-1, content[-1] ^ 1),
        "a bit of the head": lambda content: content.__setitem__(12, content[12] ^ 1),
        "the end": lambda content: content.__delitem__(slice(-100, None)),
    }
    wrong = []
    for name, damage in damages.items():
        slide = await ready_slide(server, server.attacker)
        (path,) = (server.slide_folder("attacker", slide) / "embeddings").iterdir()
        content = bytearray(path.read_bytes())
        damage(content)
        path.write_bytes(content)
        _forget_cached(server)
        answer = await server.target.ask(slide, server.attacker, max_tokens=1)
        if answer.status in (200, 500):
            wrong.append(f"{name}: {answer.status}")
        await server.target.post(f"/v1/slides/{slide}/encode", {}, server.attacker)
        if await server.target.wait_until_encoded(slide, server.attacker, 30) != "ready":
            wrong.append(f"{name}: not mended by another encode")
    return nothing_of("embedding damaged", wrong, "not answered from, and made again", len(damages))


async def _source(server: OwnServer) -> Finding:
    """Gone from the store while the record stays: the same upload mends it."""
    content = features_file()
    slide = await ready_slide(server, server.attacker, content)
    folder = server.slide_folder("attacker", slide)
    for path in (folder / "source" / "slide", *(folder / "embeddings").iterdir()):
        path.unlink()
    _forget_cached(server)
    reply = await server.target.upload_one("a.h5", content, server.attacker)
    await server.target.post(f"/v1/slides/{slide}/encode", {}, server.attacker)
    state = await server.target.wait_until_encoded(slide, server.attacker, 30)
    wrong = [] if state == "ready" else [f"uploaded again {reply.status}, then {state or 'unknown'}"]
    return nothing_of("source file gone", wrong, "mended by uploading it again", 1)


async def _key_files(server: OwnServer) -> Finding:
    """A damaged key is nobody's key; all others work, and the operator's commands do."""
    folder, wrong = server.data_dir / "store" / "keys", []
    secret = json.loads(server.command("keys", "create", "--tenant", "third", "--json").stdout)["key"]
    (path,) = [it for it in folder.iterdir() if json.loads(it.read_text())["tenant"] == "third"]
    damages = (b"", b"{", b"\xff", b"[]", b'{"tenant": "../other"}', path.read_bytes().replace(b"third", b"../other"))
    for number, damage in enumerate(damages):
        path.write_bytes(damage)
        reply = await server.target.get("/v1/slides", secret)
        others = await server.target.get("/v1/slides", server.other)
        if reply.status not in (401, 403) or others.status != 200:
            wrong.append(f"damage {number}: {reply.status}, others {others.status}")
    listed = server.command("keys", "list")
    if listed.returncode != 0 or "Traceback" in listed.stderr:
        wrong.append(f"`keys list` ends with {listed.returncode}")
    path.unlink()
    return nothing_of("key file damaged", wrong, "401 for that key only", len(damages) + 1)


async def _other_file_kinds(server: OwnServer) -> Finding:
    """What is no record where records are: folders, stray files, links out of the store."""
    wrong, slides = [], server.slide_folder("attacker", "x").parent
    good = await ready_slide(server, server.attacker)
    strays = [slides / "no-id", slides / ("0" * 64), slides / ("A" * 64)]
    for it in strays:
        it.mkdir(exist_ok=True)
        (it / "stray").write_text("x")
    (slides / "file").write_text("x")
    (slides / ("1" * 64)).symlink_to(server.slide_folder("other", "x").parent)
    (server.data_dir / "store" / "keys" / "README").write_text("x")
    for path in ("/v1/slides", f"/v1/slides/{'0' * 64}", f"/v1/slides/{'1' * 64}"):
        reply = await server.target.get(path, server.attacker)
        if reply.status not in (200, 404, 422):
            wrong.append(f"{path[:14]}: {reply.status}")
    listed = await server.target.get("/v1/slides?limit=100", server.attacker)
    if good not in {it["id"] for it in listed.json.get("data", [])}:
        wrong.append("a good slide is not listed")
    if server.command("keys", "list").returncode != 0:
        wrong.append("`keys list` fails")
    (server.data_dir / "store" / "keys" / "README").unlink()
    (slides / ("1" * 64)).unlink()
    return nothing_of("stray files and links in the store", wrong, "passed over", 5)


def _forget_cached(server: OwnServer) -> None:
    """So that the file is read: what Redis and the API's memory hold of embeddings is away, as after a restart."""
    redis = Redis.from_url(server.environment_of_api()["EYEPIECE_REDIS_URL"])
    for key in redis.scan_iter(match="eyepiece:*:embedding:*"):
        redis.delete(key)
    redis.close()
