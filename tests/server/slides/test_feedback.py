"""The shelf of feedback after writes that were cut off between any two steps."""

from datetime import UTC, datetime, timedelta

import pytest

from server.settings import Settings
from server.slides.feedback import FeedbackRecord, FeedbackShelf, TurnName
from server.slides.slide_record import now
from server.storage.slide_store import SlideStore, open_store

SLIDE, CONVERSATION = "5e" * 32, "conv_" + "x" * 22
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


class Killed(Exception):
    """The process ends here."""


@pytest.fixture
def store(settings: Settings) -> SlideStore:
    return open_store(settings)


def record(given_at: datetime, turn: int = 1, words: str = "first") -> FeedbackRecord:
    return FeedbackRecord(
        slide_id=SLIDE,
        conversation_id=CONVERSATION,
        turn=turn,
        question="Why?",
        answer="So.",
        answered_at=LONG_AGO,
        verdict="agree",
        words=words,
        given_at=given_at,
    )


async def exported(shelf: FeedbackShelf) -> list[str | None]:
    return [it.words async for it in shelf.since("a", None) if isinstance(it, FeedbackRecord)]


async def test_all_of_many_come_in_the_order_in_which_they_were_given(store: SlideStore) -> None:
    shelf = FeedbackShelf(store)
    for number in (7, 3, 9, 1):
        await shelf.put("a", record(LONG_AGO + timedelta(hours=number), number, str(number)))

    assert await exported(shelf) == ["1", "3", "7", "9"]
    behind = [it async for it in shelf.since("a", LONG_AGO + timedelta(hours=3, milliseconds=1))]
    assert [it.turn for it in behind if isinstance(it, FeedbackRecord)] == [7, 9]


@pytest.mark.parametrize("step", [0, 1, 2])
async def test_a_change_that_was_cut_off_leaves_the_one_or_the_other(
    store: SlideStore, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    shelf = FeedbackShelf(store)
    await shelf.put("a", record(LONG_AGO))
    steps = 0

    def killed_at_step(what: str) -> None:
        original = getattr(SlideStore, what)

        async def counted(self: SlideStore, *arguments: object) -> object:
            nonlocal steps
            if steps == step:
                raise Killed
            steps += 1
            return await original(self, *arguments)

        monkeypatch.setattr(SlideStore, what, counted)

    killed_at_step("put")
    killed_at_step("discard")
    with pytest.raises(Killed):
        await shelf.put("a", record(now(), words="second"))
    monkeypatch.undo()

    assert await exported(shelf) == ["first" if step < 2 else "second"]
    await shelf.put("a", record(now() + timedelta(seconds=1), words="third"))
    assert await exported(shelf) == ["third"]


async def test_an_old_entry_that_tells_of_nothing_goes_and_a_young_one_stays(store: SlideStore) -> None:
    shelf = FeedbackShelf(store)
    await shelf.put("a", record(LONG_AGO, 1))
    await shelf.put("a", record(now(), 2))
    for path in await store.keys_after("tenants/a", "", 10):
        await store.delete(f"tenants/a/{path}")

    assert await exported(shelf) == []
    (left,) = await store.keys_after("index/feedback/a", "", 10)
    assert left.endswith("-000002")
    assert await shelf.find("a", TurnName(SLIDE, CONVERSATION, 2)) is None


async def test_what_lies_in_the_index_and_is_no_entry_is_passed_over(store: SlideStore) -> None:
    shelf = FeedbackShelf(store)
    await store.put("index/feedback/a/17643/82/README", b"")
    await shelf.put("a", record(LONG_AGO))

    assert await exported(shelf) == ["first"]
