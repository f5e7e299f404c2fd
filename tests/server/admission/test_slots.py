"""Shares of slots: one tenant alone gets most of them, and never all that others could come for."""

from collections.abc import Callable
from contextlib import ExitStack

import pytest
from api_parts import client_of, problem_of, stored_slide
from fastapi import FastAPI

from server.admission.slots import TenantSlots
from server.api.parts import Parts
from server.errors import Overloaded


def as_many_as_it_gets(slots: TenantSlots, tenant: str, held: ExitStack) -> int:
    taken = 0
    while True:
        try:
            held.enter_context(slots.one(tenant))
        except Overloaded:
            return taken
        taken += 1


@pytest.mark.parametrize("size", [3, 16, 64, 256])
def test_one_tenant_gets_most_and_leaves_room_for_two_more(size: int) -> None:
    slots = TenantSlots(size, "uploads")

    with ExitStack() as held:
        got = [as_many_as_it_gets(slots, tenant, held) for tenant in ("a", "b", "c")]

        assert size * 0.6 <= got[0] < size
        assert got[1] >= 1
        assert got[2] >= (size > 3)


@pytest.mark.parametrize("size", [1, 2])
def test_where_there_is_no_room_for_shares_a_lone_tenant_gets_all(size: int) -> None:
    with ExitStack() as held:
        assert as_many_as_it_gets(TenantSlots(size, "uploads"), "a", held) == size


def test_a_freed_slot_goes_to_the_tenant_that_holds_fewer() -> None:
    slots = TenantSlots(9, "uploads")
    first = ExitStack()
    with ExitStack() as held:
        first.enter_context(slots.one("a"))
        while as_many_as_it_gets(slots, "a", held) or as_many_as_it_gets(slots, "b", held):
            pass
        as_many_as_it_gets(slots, "c", held)
        first.close()

        with pytest.raises(Overloaded, match="its share of concurrent uploads"):
            held.enter_context(slots.one("a"))
        held.enter_context(slots.one("d"))


def test_a_refusal_says_whose_slots_are_used_up_and_when_to_come_back() -> None:
    slots = TenantSlots(3, "questions")
    with ExitStack() as held:
        as_many_as_it_gets(slots, "a", held)
        with pytest.raises(Overloaded, match="its share of concurrent questions") as own:
            held.enter_context(slots.one("a"))
        as_many_as_it_gets(slots, "b", held)
        with pytest.raises(Overloaded, match="all tenants together") as everybodys:
            held.enter_context(slots.one("c"))

    assert own.value.retry_after_s
    assert everybodys.value.retry_after_s
    assert as_many_as_it_gets(slots, "c", ExitStack()) == 2


async def test_downloads_have_slots_and_give_them_back(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(max_concurrent_downloads=1)
    parts: Parts = app.state.parts
    record = await stored_slide(parts, ready=True)
    address = f"/v1/slides/{record.id}/features"

    async with client_of(app) as client:
        with parts.download_slots.one("other"):
            refused = await client.get(address)
        answers = [await client.get(address) for _ in range(2)]

    assert problem_of(refused, 429) == "overloaded"
    assert [answer.content for answer in answers] == [b"features", b"features"]
