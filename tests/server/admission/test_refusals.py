"""The pace of refusals: a client that asks again at once is told so slower and slower, and nobody else is."""

import asyncio
from collections.abc import Callable

from api_parts import client_of, problem_of, stored_slide
from fastapi import FastAPI

from server.admission.refusals import RefusalPace
from server.api.parts import Parts
from server.identity.api_keys import create_key


def test_the_first_refusals_come_at_once_and_the_others_at_their_pace() -> None:
    pace = RefusalPace(at_once=3, per_s=10)

    waits = [round(pace.wait_s("a", 100.0), 3) for _ in range(6)]

    assert waits == [0.0, 0.0, 0.0, 0.1, 0.2, 0.3]
    assert pace.wait_s("b", 100.0) == 0.0
    assert pace.wait_s("a", 100.5) == 0.0


def test_no_refusal_waits_for_long_and_a_flood_is_soon_forgotten() -> None:
    pace = RefusalPace(at_once=3, per_s=10)

    assert max(pace.wait_s("a", 100.0) for _ in range(1000)) == 5.0
    assert pace.wait_s("a", 106.0) == 0.0


def test_what_is_remembered_of_tenants_is_bounded() -> None:
    pace = RefusalPace(at_once=1, per_s=10)

    for number in range(12_000):
        pace.wait_s(f"t{number}", 100.0)

    assert len(pace._given_until) == 10_000
    assert pace.wait_s("t11999", 100.0) > 0


async def test_a_tenant_that_is_refused_again_and_again_waits_and_another_does_not(
    make_app: Callable[..., FastAPI],
) -> None:
    app = make_app(max_concurrent_followers=0, max_concurrent_questions=0)
    parts: Parts = app.state.parts
    waited: dict[str, int] = {}

    async def wait(tenant: str) -> None:
        waited[tenant] = waited.get(tenant, 0) + 1
        await asyncio.sleep(0)

    parts.refusals.wait = wait  # type: ignore[method-assign]
    for tenant, times in (("flood", 3), ("modest", 1)):
        record = await stored_slide(parts, tenant=tenant, ready=True)
        async with client_of(app, await create_key(parts.store, tenant)) as client:
            for _ in range(times):
                assert problem_of(await client.get(f"/v1/slides/{record.id}/events"), 429) == "overloaded"
            asked = await client.post(f"/v1/slides/{record.id}/questions", json={"question": "No memory for bodies?"})
            assert problem_of(asked, 429) == "overloaded"
            assert (await client.get("/v1/slides/none")).status_code == 404

    assert waited == {"flood": 4, "modest": 2}
