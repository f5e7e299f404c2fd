"""Looks into slides: few for each upload, turn by turn between tenants, and thumbnails beside them."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from api_parts import client_of, problem_of, stored_slide, until, upload
from fastapi import FastAPI
from held_readers import held_readers

from encoders.errors import UnreadableSlide
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.types import SlideFacts
from server.api.parts import Parts
from server.identity.api_keys import create_key
from server.uploads import slide_inspection

FACTS = SlideFacts("aperio", 1024, 768, 0.5, 20.0)


class HeldLooks:
    """In place of reader processes: each look lasts until it is released."""

    def __init__(self) -> None:
        self.begun: list[Path] = []
        self.nicenesses: list[int] = []
        self.running = 0
        self.most_running = 0
        self.release = threading.Event()
        self._lock = threading.Lock()

    def facts(self, path: Path, _: object, limits: ReaderLimits) -> SlideFacts:
        self._look(path, limits)
        if b"garbage" in path.read_bytes():
            raise UnreadableSlide("It is garbage.")
        return FACTS

    def _look(self, path: Path, limits: ReaderLimits) -> None:
        with self._lock:
            self.begun.append(path)
            self.nicenesses.append(limits.niceness)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        self.release.wait()
        with self._lock:
            self.running -= 1


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> HeldLooks:
    looks = HeldLooks()
    monkeypatch.setattr(slide_inspection, "_facts", looks.facts)
    return looks


async def upload_form(client: httpx.AsyncClient, files: dict[str, bytes]) -> httpx.Response:
    return await client.post("/v1/slides", files=[("file", item) for item in files.items()])


async def test_a_form_of_garbage_costs_no_look(client: httpx.AsyncClient, looks: HeldLooks) -> None:
    answer = await upload_form(client, {f"{number}.svs": b"garbage" * 100 for number in range(20)})
    alone = await upload(client, b"garbage" * 100)

    assert (problem_of(answer, 415), problem_of(alone, 415)) == ("unsupported_format", "unsupported_format")
    assert looks.begun == []


async def test_a_form_that_only_looks_like_slides_costs_few(client: httpx.AsyncClient, looks: HeldLooks) -> None:
    looks.release.set()
    files = {f"{number}.dcm": bytes(128) + b"DICM garbage" + bytes(number) for number in range(20)}

    assert problem_of(await upload_form(client, files), 422) == "unreadable_slide"
    assert [path.name for path in looks.begun] == ["19.dcm", "18.dcm", "17.dcm", "16.dcm"]


async def test_uploads_and_thumbnails_of_a_flood_leave_another_tenant_its_look(
    make_app: Callable[..., FastAPI], looks: HeldLooks
) -> None:
    app = make_app()
    readers = held_readers(app, answering=False)
    parts: Parts = app.state.parts
    records = [await stored_slide(parts, f"s{number}", tenant="flood") for number in range(5)]
    keys = [await create_key(parts.store, tenant) for tenant in ("flood", "modest")]
    async with client_of(app, keys[0]) as flood, client_of(app, keys[1]) as modest:
        uploads = [asyncio.create_task(upload(flood, b"II*\x00" + bytes([number]))) for number in range(8)]
        pictures = [asyncio.create_task(flood.get(f"/v1/slides/{record.id}/thumbnail")) for record in records]
        await until(lambda: len(looks.begun) == 2)
        await until(lambda: len(readers.started) == 1)

        one = asyncio.create_task(upload(modest, b"II*\x00 of another tenant"))
        await until(lambda: any(b"another" in path.read_bytes() for path in looks.begun if path.exists()))
        assert len(readers.started) == 1
        looks.release.set()
        readers.answer.set()
        answers = await asyncio.gather(one, *uploads, *pictures)

    assert {answer.status_code for answer in answers} == {200, 202}
    assert looks.most_running <= 3
    # The flood's first look began when there was no other; what it wants besides stands back behind the other tenant's.
    assert sorted(looks.nicenesses[:2]) == [0, 7]
    assert looks.nicenesses[2] == 0
    assert set(readers.nicenesses) == {3}
