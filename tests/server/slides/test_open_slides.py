"""Slides kept open for viewers: whose turn it is, who gets a place, and what becomes of readers that die."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from api_parts import stored_slide, until
from fastapi import FastAPI
from held_readers import HeldReaders

from encoders.errors import ReaderDied, UnreadableSlide
from encoders.tiling.isolation.reader_limits import ReaderLimits
from server.api.parts import Parts
from server.errors import NotFound, Overloaded, SlideReaderLost
from server.slides import open_slides
from server.slides.open_slides import OpenSlides
from server.slides.slide_record import SlideRecord
from server.storage.slide_store import SlideStore

Make = Callable[..., OpenSlides]


@pytest.fixture
async def make(parts: Parts) -> AsyncIterator[Make]:
    made: list[tuple[OpenSlides, HeldReaders]] = []

    def make(
        readers: HeldReaders, most: int = 4, idle_s: float = 600, store: SlideStore = parts.store, **more: Any
    ) -> OpenSlides:
        slides = OpenSlides(store, ReaderLimits(), most, idle_s, parts.metrics, start=readers, **more)
        made.append((slides, readers))
        return slides

    yield make
    for slides, readers in made:
        readers.open.set()
        readers.answer.set()
        await slides.aclose()
        assert readers.running == []


def asking(slides: OpenSlides, record: SlideRecord, *columns: int) -> list["asyncio.Task[bytes]"]:
    return [asyncio.create_task(slides.tile(record, 10, column, 0)) for column in columns]


async def test_the_newest_is_read_first_and_who_hung_up_not_at_all(make: Make, parts: Parts) -> None:
    readers, record = HeldReaders(answering=False), await stored_slide(parts)
    slides = make(readers)
    first = asking(slides, record, 0)
    await until(lambda: bool(readers.started and readers.started[0].asked))
    others = asking(slides, record, 1, 2, 3, 4)
    await asyncio.sleep(0)
    others[1].cancel()
    await asyncio.sleep(0)
    assert parts.metrics.registry.get_sample_value("eyepiece_view_pictures_waiting") == 3
    readers.answer.set()
    answers = await asyncio.gather(*first, *others, return_exceptions=True)

    assert [column for _, column, _ in readers.started[0].asked] == [0, 4, 3, 1]
    assert answers[0] == b"tile 10 0 0"
    assert isinstance(answers[2], asyncio.CancelledError)


async def test_one_who_hangs_up_while_it_is_read_harms_nobody(make: Make, parts: Parts) -> None:
    readers, record = HeldReaders(answering=False), await stored_slide(parts)
    slides = make(readers)
    (gone,) = asking(slides, record, 0)
    await until(lambda: bool(readers.started and readers.started[0].asked))
    gone.cancel()
    readers.answer.set()

    assert await slides.tile(record, 10, 1, 0) == b"tile 10 1 0"
    assert len(readers.started) == 1


async def test_beyond_its_bound_a_line_refuses_the_oldest(
    make: Make, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_slides, "MOST_WAITING", 3)
    readers, record = HeldReaders(answering=False), await stored_slide(parts)
    slides = make(readers)
    first = asking(slides, record, 0)
    await until(lambda: bool(readers.started and readers.started[0].asked))
    others = asking(slides, record, 1, 2, 3, 4)
    await until(others[0].done)
    readers.answer.set()
    answers = await asyncio.gather(*first, *others, return_exceptions=True)

    assert isinstance(answers[1], Overloaded)
    assert answers[1].retry_after_s
    assert [isinstance(answer, bytes) for answer in answers] == [True, False, True, True, True]


async def test_a_tenant_waits_for_a_bounded_number_of_slides(make: Make, parts: Parts) -> None:
    readers = HeldReaders()
    readers.open.clear()
    slides = make(readers, most=2)
    records = [await stored_slide(parts, f"s{number}") for number in range(19)]
    waiting = [task for record in records for task in asking(slides, record, 0)]
    await until(lambda: sum(task.done() for task in waiting) == 2)  # one has a place, sixteen wait
    readers.open.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)

    assert sum(isinstance(answer, Overloaded) for answer in answers) == 2


async def test_the_longest_unused_slide_of_the_same_tenant_makes_room(make: Make, parts: Parts) -> None:
    readers = HeldReaders()
    slides = make(readers, most=3)
    mine = [await stored_slide(parts, f"s{number}", tenant="a") for number in range(3)]
    theirs = await stored_slide(parts, "theirs", tenant="b")
    await slides.tile(theirs, 10, 0, 0)
    for record in (mine[0], mine[1], mine[0], mine[2]):
        await slides.tile(record, 10, 0, 0)

    assert [slides.is_open(record) for record in (*mine, theirs)] == [True, False, True, True]
    assert len(readers.running) == 3
    assert len(readers.started) == 4
    assert parts.metrics.registry.get_sample_value("eyepiece_slide_readers_open") == 3


async def test_a_tenant_never_has_all_places(make: Make, parts: Parts) -> None:
    readers = HeldReaders(answering=False)
    slides = make(readers, most=3)
    flood = [await stored_slide(parts, f"s{number}", tenant="flood") for number in range(4)]
    waiting = [task for record in flood for task in asking(slides, record, 0)]
    await until(lambda: sum(bool(reader.asked) for reader in readers.started) == 2)
    one = asking(slides, await stored_slide(parts, "one", tenant="modest"), 0)
    await until(lambda: sum(bool(reader.asked) for reader in readers.started) == 3)
    readers.answer.set()

    assert len(await asyncio.gather(*one, *waiting)) == 5


async def test_a_slide_that_never_rests_gives_its_place_away_after_a_turn(make: Make, parts: Parts) -> None:
    readers = HeldReaders(answering=False)
    slides = make(readers, most=2, turn_s=0)
    first, second = [await stored_slide(parts, name) for name in ("first", "second")]
    busy = asking(slides, first, *range(10))
    await until(lambda: bool(readers.started and readers.started[0].asked))
    (other,) = asking(slides, second, 0)
    await asyncio.sleep(0)
    readers.answer.set()
    await other

    assert len(readers.started[0].asked) == 1
    assert len(await asyncio.gather(*busy)) == 10


async def test_a_thumbnail_gives_no_claim_to_a_place(make: Make, parts: Parts) -> None:
    readers = HeldReaders()
    slides = make(readers, most=3)
    viewed, pictured, third = [await stored_slide(parts, name) for name in ("viewed", "pictured", "third")]
    await slides.tile(viewed, 10, 0, 0)
    assert await slides.thumbnail(pictured, 64, "jpeg") == b"x" * 64
    await slides.tile(third, 10, 0, 0)

    assert [slides.is_open(record) for record in (viewed, pictured, third)] == [True, False, True]


async def test_a_slide_that_nobody_looks_at_is_closed(make: Make, parts: Parts) -> None:
    readers, record = HeldReaders(), await stored_slide(parts)
    slides = make(readers, idle_s=0.02)
    await slides.tile(record, 10, 0, 0)
    await until(lambda: readers.running == [])
    assert not slides.is_open(record)
    await until(lambda: not slides._placed)
    assert slides._slides == {}

    assert await slides.tile(record, 10, 1, 0) == b"tile 10 1 0"
    assert len(readers.started) == 2


async def test_a_reader_that_dies_costs_one_request_and_is_replaced(make: Make, parts: Parts) -> None:
    readers, record = HeldReaders(answering=False), await stored_slide(parts)
    slides = make(readers)
    first = asking(slides, record, 0)
    await until(lambda: bool(readers.started and readers.started[0].asked))
    others = asking(slides, record, 1, 2)
    await asyncio.sleep(0)
    readers.started[0].kill()
    await until(lambda: len(readers.started) == 2)
    readers.answer.set()

    with pytest.raises(SlideReaderLost, match="try again"):
        await first[0]
    assert await asyncio.gather(*others) == [b"tile 10 1 0", b"tile 10 2 0"]


async def test_a_slide_that_kills_its_readers_is_not_tried_for_ever(make: Make, parts: Parts) -> None:
    readers, record = HeldReaders(), await stored_slide(parts)
    readers.refusal = ReaderDied("dead")
    slides = make(readers)
    answers = await asyncio.gather(*asking(slides, record, *range(20)), return_exceptions=True)

    assert {type(answer) for answer in answers} == {SlideReaderLost}
    assert len(readers.started) == 2


async def test_a_slide_that_cannot_be_opened_is_not_opened_for_every_tile(make: Make, parts: Parts) -> None:
    readers, record = HeldReaders(), await stored_slide(parts)
    readers.refusal = UnreadableSlide("It is damaged; upload it again.")
    slides = make(readers)
    for column in range(3):
        with pytest.raises(UnreadableSlide, match="damaged"):
            await slides.tile(record, 10, column, 0)
    assert len(readers.started) == 1

    readers.refusal = None
    slides.forget(record.tenant, record.id)
    assert await slides.tile(record, 10, 0, 0)


async def test_a_deleted_slide_ends_its_reader_and_tells_who_waits(make: Make, parts: Parts) -> None:
    readers, record = HeldReaders(answering=False), await stored_slide(parts)
    slides = make(readers)
    waiting = asking(slides, record, 0, 1)
    await until(lambda: bool(readers.started and readers.started[0].asked))
    slides.forget(record.tenant, record.id)
    answers = await asyncio.gather(*waiting, return_exceptions=True)

    assert {type(answer) for answer in answers} == {NotFound}
    assert readers.started[0].is_killed
    await until(lambda: readers.running == [])


async def test_a_slide_that_is_gone_from_the_store_is_not_found(make: Make, parts: Parts) -> None:
    readers, record = HeldReaders(), await stored_slide(parts)
    await parts.store.delete(record.paths.source)

    with pytest.raises(NotFound):
        await make(readers).tile(record, 10, 0, 0)
    assert readers.started == []


async def test_a_slide_in_a_bucket_is_copied_for_as_long_as_it_is_open(
    make_app: Callable[..., FastAPI], make: Make
) -> None:
    bucket: Parts = make_app(store_url="memory:///").state.parts
    readers, record = HeldReaders(), await stored_slide(bucket)
    slides = make(readers, store=bucket.store)
    await slides.tile(record, 10, 0, 0)
    (reader,) = readers.started
    assert reader.path.read_bytes() == b"bytes"
    await slides.tile(record, 10, 1, 0)

    slides.forget(record.tenant, record.id)
    await until(lambda: not slides._placed)
    assert not reader.path.exists()
    assert list(bucket.store.staging_dir.iterdir()) == []
