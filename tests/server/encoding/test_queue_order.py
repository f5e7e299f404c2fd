"""The order in which slides are taken: tenants take turns, urgent ones first but not alone."""

from random import Random

import pytest
from taken_jobs import RecordOf, order

from server.encoding.jobs import TILES_OF_A_TURN, EncodeJobs
from server.encoding.queue_order import URGENT_IN_A_ROW
from server.slides.slide_record import Priority


@pytest.mark.parametrize("priority", ["routine", "urgent"])
async def test_tenants_take_turns_and_each_keeps_its_own_order(
    jobs: EncodeJobs, record_of: RecordOf, priority: Priority
) -> None:
    for name in ("a1", "a2", "a3", "a4"):
        await jobs.enqueue(record_of(name, "flood", priority))
    for name in ("b1", "b2"):
        await jobs.enqueue(record_of(name, "modest", priority))
    await jobs.enqueue(record_of("c1", "third", priority))

    assert await order(jobs, 5) == ["flood a1", "modest b1", "third c1", "flood a2", "modest b2"]
    await jobs.enqueue(record_of("c2", "third", priority))
    assert await order(jobs, 3) == ["third c2", "flood a3", "flood a4"]


async def test_a_tenant_that_comes_back_for_every_slide_does_not_starve_one_that_waits(
    jobs: EncodeJobs, record_of: RecordOf
) -> None:
    for name in ("a1", "a2", "a3"):
        await jobs.enqueue(record_of(name, "waits"))
    taken = []
    for name in ("b1", "b2", "b3"):
        await jobs.enqueue(record_of(name, "returns"))
        taken += await order(jobs, 1)

    assert taken == ["waits a1", "returns b1", "waits a2"]


async def test_urgent_jobs_go_first_but_leave_routine_ones_a_turn(jobs: EncodeJobs, record_of: RecordOf) -> None:
    for number in range(2 * URGENT_IN_A_ROW):
        await jobs.enqueue(record_of(f"u{number}", "flood", "urgent"))
    for name in ("r1", "r2", "r3"):
        await jobs.enqueue(record_of(name, "flood"))

    taken = [name.split()[1][0] for name in await order(jobs, 2 * URGENT_IN_A_ROW + 3)]

    turn = ["u"] * URGENT_IN_A_ROW + ["r"]
    assert taken == [*turn, *turn, "r"]


async def test_one_tenants_urgent_jobs_take_turns_with_anothers_routine_ones(
    jobs: EncodeJobs, record_of: RecordOf
) -> None:
    for number in range(5):
        await jobs.enqueue(record_of(f"u{number}", "flood", "urgent"))
    for name, tenant in (("r1", "b"), ("r2", "b"), ("r3", "c")):
        await jobs.enqueue(record_of(name, tenant))

    assert await order(jobs, 7) == ["flood u0", "b r1", "flood u1", "c r3", "flood u2", "b r2", "flood u3"]


async def test_urgent_jobs_of_several_tenants_come_before_routine_ones(jobs: EncodeJobs, record_of: RecordOf) -> None:
    await jobs.enqueue(record_of("r", "c"))
    for tenant in ("a", "b"):
        await jobs.enqueue(record_of("u", tenant, "urgent"))

    assert await order(jobs, 3) == ["a u", "b u", "c r"]


async def test_a_routine_job_waits_for_the_slide_in_hand_and_for_no_second_one_of_the_same_tenant(
    jobs: EncodeJobs, record_of: RecordOf
) -> None:
    await jobs.enqueue(record_of("u0", "flood", "urgent"))
    assert await order(jobs, 1) == ["flood u0"]
    await jobs.enqueue(record_of("u1", "flood", "urgent"))
    await jobs.enqueue(record_of("r", "modest"))

    assert await order(jobs, 2) == ["modest r", "flood u1"]


@pytest.mark.parametrize(
    ("tiles", "expected"),
    [
        (TILES_OF_A_TURN - 1, ["modest a", "flood b", "modest c", "flood d"]),
        (2 * TILES_OF_A_TURN, ["modest a", "modest c", "flood b", "flood d"]),
    ],
)
async def test_a_tenant_that_had_a_huge_slide_waits_for_more_than_one_of_the_others(
    jobs: EncodeJobs, record_of: RecordOf, tiles: int, expected: list[str]
) -> None:
    await jobs.enqueue(record_of("huge", "flood"))
    assert await order(jobs, 1) == ["flood huge"]
    for tenant, names in (("flood", "bd"), ("modest", "ac")):
        for name in names:
            await jobs.enqueue(record_of(name, tenant))
    await jobs.queues["routine"].charge("flood", tiles)

    assert await order(jobs, 4) == expected


async def test_urgent_jobs_of_an_idle_time_are_not_held_against_the_next(jobs: EncodeJobs, record_of: RecordOf) -> None:
    for number in range(URGENT_IN_A_ROW + 1):
        await jobs.enqueue(record_of(f"u{number}", priority="urgent"))
    await order(jobs, URGENT_IN_A_ROW)
    await jobs.enqueue(record_of("r"))

    assert await order(jobs, 2) == [f"default u{URGENT_IN_A_ROW}", "default r"]


async def test_another_tenants_urgent_job_waits_for_one_turn_only(jobs: EncodeJobs, record_of: RecordOf) -> None:
    for number in range(50):
        await jobs.enqueue(record_of(f"a{number}", "flood", "urgent"))
        await jobs.enqueue(record_of(f"r{number}", "flood"))
    await order(jobs, 3)

    await jobs.enqueue(record_of("u", "modest", "urgent"))

    assert await order(jobs, 1) == ["modest u"]


@pytest.mark.parametrize("seed", range(6))
async def test_what_is_said_to_be_ahead_is_what_is_taken(jobs: EncodeJobs, record_of: RecordOf, seed: int) -> None:
    random, tenants = Random(seed), "abcd"
    for number in range(16):
        await jobs.enqueue(record_of(f"{number}", random.choice(tenants), random.choice(["urgent", "routine"])))
        if random.random() < 0.4:
            await order(jobs, 1)
    said = {tenant: (await jobs.standing(tenant)) for tenant in tenants}

    left = sum(it.waiting for it in said.values())
    taken = [name.split()[0] for name in await order(jobs, left)]

    assert {tenant: taken.index(tenant) for tenant in tenants if tenant in taken} == {
        tenant: it.ahead for tenant, it in said.items() if it.waiting
    }
    assert (await jobs.standing("e")).ahead == 0
