"""What an operator sees of webhooks, from a real encode to a dead letter that is replayed."""

import asyncio
from collections.abc import Callable

from api_parts import client_of, encode_job, problem_of, running_worker, until, upload
from fakes import FakeEncode
from fastapi import FastAPI
from webhook_receiver import endpoint_at, running_receiver

from encoders.errors import NoTissue
from server.app import build_webhook_delivery


async def test_a_slide_is_told_of_and_what_was_not_taken_is_seen_and_replayed(
    make_app: Callable[..., FastAPI], sample_slide: bytes
) -> None:
    with running_receiver() as receiver:
        receiver.answers = [500]
        own, others = endpoint_at(receiver.url), endpoint_at(receiver.url, name="others", tenant="b")
        app = make_app(webhooks=(own, others), webhook_attempts=1)
        parts = app.state.parts
        async with client_of(app) as client:
            slide = (await upload(client, sample_slide)).json()
            encode = FakeEncode(slide["encoder_id"], error=NoTissue("There is no tissue."))
            delivery = asyncio.create_task(build_webhook_delivery(parts).run())
            async with running_worker(parts.jobs, encode_job(parts, encode).run):
                await until(lambda: _dead(parts.webhooks.queues[0].counts()))
            (listed,) = (await client.get("/v1/webhooks")).json()["data"]
            (letter,) = (await client.get("/v1/webhooks/lis/dead")).json()["data"]
            none = await client.post("/v1/webhooks/lis/replay", json={"ids": ["evt_" + "0" * 32]})
            replayed = await client.post("/v1/webhooks/lis/replay", json={})
            await until(lambda: bool(receiver.got))
            unknown = await client.get("/v1/webhooks/others/dead")
            delivery.cancel()
            await asyncio.gather(delivery, return_exceptions=True)

        said = receiver.verified(1)

    assert (listed["name"], listed["host"], listed["waiting"], listed["dead"]) == ("lis", "127.0.0.1", 0, 1)
    assert (letter["type"], letter["slide_id"]) == ("slide.failed", slide["id"])
    assert (letter["attempts"], letter["reason"], letter["status"]) == (1, "status", 500)
    assert (none.json()["replayed"], replayed.status_code, replayed.json()["replayed"]) == (0, 202, 1)
    assert problem_of(unknown, 404) == "not_found"
    assert receiver.got == [letter["id"]]
    assert said["data"] == {
        "slide_id": slide["id"],
        "tenant": "default",
        "model": "demo",
        "encoder_id": slide["encoder_id"],
        "status": "failed",
        "error_code": "no_tissue",
    }
    assert all(b"Doe" not in body and b"tissue." not in body for _, _, body in receiver.asked)


async def _dead(counts: "asyncio.Future[tuple[int, int]]") -> bool:
    return (await counts)[1] > 0
