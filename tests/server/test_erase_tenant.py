"""`eyepiece tenants erase`: nothing of the tenant is left, everything of others is, and the audit log says what was."""

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from api_parts import client_of, stored_slide
from fastapi import FastAPI
from redis.asyncio import Redis

from server.api.dependencies import erase_tenant
from server.api.parts import Parts
from server.commands.outcome import CommandError
from server.commands.tenants import Note, _erase, erase
from server.identity.api_keys import create_key, list_keys
from server.settings import Settings


async def used(app: FastAPI, tenant: str) -> str:
    """A slide of a tenant that was asked about and judged, and one that waits."""
    parts: Parts = app.state.parts
    slide = (await stored_slide(parts, f"of {tenant}", tenant=tenant, ready=True)).id
    await stored_slide(parts, f"waiting of {tenant}", tenant=tenant)
    async with client_of(app, await create_key(parts.store, tenant, None)) as client:
        asked = {"question": "Why?", "stream": False}
        answer = (await client.post(f"/v1/slides/{slide}/questions", json=asked)).json()
        turn = f"/v1/conversations/{answer['conversation_id']}/turns/1/feedback"
        assert (await client.put(turn, json={"verdict": "agree"})).status_code == 200
        created = await client.post("/v1/uploads", headers={"Tus-Resumable": "1.0.0", "Upload-Length": "9"})
        assert created.status_code == 201
    return slide


def of_tenant(folder: Path, tenant: str) -> set[str]:
    names = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return {name for name in names if f"/{tenant}/" in name or f"/{tenant}.json" in name}


async def keys_of(redis: Redis, tenant: str) -> set[bytes]:
    return {key async for key in redis.scan_iter("*") if f"{{{tenant}}}".encode() in key}


async def test_nothing_of_the_tenant_is_left_and_the_log_says_what_there_was(
    make_app: Callable[..., FastAPI], settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    app = make_app()
    parts: Parts = app.state.parts
    slides = {tenant: await used(app, tenant) for tenant in ("clinic", "clinic-b")}
    store = parts.store.local_root
    assert store is not None
    before = of_tenant(store, "clinic-b"), await keys_of(redis, "clinic-b")
    assert len(of_tenant(store, "clinic")) > 5

    async def erasing(_: Settings, tenant: str, note: Note) -> dict[str, int]:
        return await erase_tenant(parts).erase(tenant, note)

    audited = settings.model_copy(update={"audit_dir": tmp_path / "audit"})
    erased = await _erase(audited, "clinic", erasing)

    assert (erased["keys"], erased["slides"], erased["left"]) == (1, 2, 0)
    assert erased["redis_keys"] > 0
    assert (of_tenant(store, "clinic"), await keys_of(redis, "clinic")) == (set(), set())
    assert (of_tenant(store, "clinic-b"), await keys_of(redis, "clinic-b")) == before
    assert [stored.key.tenant for stored in await list_keys(parts.store)] == ["clinic-b"]
    (path,) = (tmp_path / "audit").glob("*.jsonl")
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()][1:-1]
    assert [(it["action"], it["phase"], it["tenant"]) for it in lines] == [
        ("tenants erase", phase, "clinic") for phase in ("begun", "done", "done", "done")
    ]
    assert slides["clinic"] in {it.get("slide") for it in lines}
    assert lines[-1]["erased"] == erased


def test_nothing_is_erased_unless_somebody_says_so(settings: Settings) -> None:
    async def erasing(*_: object) -> dict[str, int]:
        raise AssertionError

    with pytest.raises(CommandError, match="--yes"):
        erase(settings, "clinic", erasing, yes=False, as_json=False)
