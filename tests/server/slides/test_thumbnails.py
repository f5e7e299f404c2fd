"""Thumbnails: turn by turn between tenants, made once, kept in bounded memory."""

import asyncio

import httpx
import pytest
from api_parts import problem_of, stored_slide, until
from fastapi import FastAPI
from held_readers import HeldReaders, held_readers

from server.api.parts import Parts
from server.slides.thumbnails import Thumbnails


@pytest.fixture
def readers(app: FastAPI) -> HeldReaders:
    return held_readers(app, answering=False)


async def test_a_thumbnail_is_made_once_however_many_ask(
    client: httpx.AsyncClient, parts: Parts, readers: HeldReaders
) -> None:
    record = await stored_slide(parts)
    asking = [asyncio.create_task(client.get(f"/v1/slides/{record.id}/thumbnail")) for _ in range(20)]
    await until(lambda: len(readers.started) == 1)
    readers.answer.set()
    answers = await asyncio.gather(*asking)
    other_size = await client.get(f"/v1/slides/{record.id}/thumbnail?max_px=64")

    assert {answer.content for answer in answers} == {b"x" * 512}
    assert other_size.content == b"x" * 64
    assert readers.started[0].asked == [(512, "jpeg"), (64, "jpeg")]
    await client.delete(f"/v1/slides/{record.id}")
    assert parts.thumbnails._kept_bytes == len(parts.thumbnails._kept) == 0


async def test_more_thumbnails_than_a_line_holds_are_refused(
    client: httpx.AsyncClient, parts: Parts, readers: HeldReaders
) -> None:
    record = await stored_slide(parts)
    readers.open.clear()
    sizes = range(64, 114)
    asking = [asyncio.create_task(client.get(f"/v1/slides/{record.id}/thumbnail?max_px={px}")) for px in sizes]
    await until(lambda: sum(task.done() for task in asking) == len(sizes) - 33)
    readers.open.set()
    readers.answer.set()
    answers = await asyncio.gather(*asking)

    refused = [answer for answer in answers if answer.status_code == 429]
    assert {problem_of(answer, 429) for answer in refused} == {"overloaded"}
    assert all(answer.headers["Retry-After"] for answer in refused)
    assert len(answers) - len(refused) == 33


async def test_thumbnails_in_memory_are_bounded(parts: Parts, readers: HeldReaders) -> None:
    readers.answer.set()
    record = await stored_slide(parts)
    thumbnails = Thumbnails(parts.open_slides, memory_bytes=250)

    for px in (100, 101, 102, 102, 101):
        assert await thumbnails.picture(record, px, "jpeg") == b"x" * px
    assert len(readers.started[0].asked) == 3
    await thumbnails.picture(record, 100, "jpeg")
    await thumbnails.picture(record, 100, "png")
    assert len(readers.started[0].asked) == 5
