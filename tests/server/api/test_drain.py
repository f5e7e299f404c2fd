"""Leaving: what runs ends, what is new is refused in the words of its route, what takes too long is told so."""

import asyncio
import signal
import subprocess
import sys
from typing import Any

import httpx
import pytest
from api_parts import stored_slide, until
from fakes import FakeVllm
from fastapi import FastAPI

from server.api.drain import Drain
from server.api.parts import Parts
from server.slides.slide_record import SlideRecord

CHAT = "/v1/chat/completions"


@pytest.fixture
async def ready(parts: Parts) -> SlideRecord:
    return await stored_slide(parts, ready=True)


def question(stream: bool = True) -> dict[str, Any]:
    return {"question": "Why?", "stream": stream}


def chat(slide: str, stream: bool) -> dict[str, Any]:
    content = [{"type": "slide", "slide": {"id": slide}}, {"type": "text", "text": "Why?"}]
    return {"model": "demo", "stream": stream, "messages": [{"role": "user", "content": content}]}


async def one_stream(vllm: FakeVllm) -> None:
    await until(lambda: len(vllm.streams) == 1)


async def test_with_nothing_running_it_leaves_at_once() -> None:
    drain = Drain()
    await asyncio.wait_for(drain.leave(0, grace_s=60), 5)
    assert drain.refusing
    assert not drain.cut.done()


async def test_new_work_is_taken_during_the_notice(client: httpx.AsyncClient, parts: Parts) -> None:
    leaving = asyncio.create_task(parts.drain.leave(notice_s=60, grace_s=60))
    await asyncio.sleep(0)

    assert (await client.get("/v1/slides")).status_code == 200
    assert (await client.get("/readyz")).json()["status"] == "draining"
    leaving.cancel()


async def test_the_notice_ends_with_the_grace() -> None:
    await asyncio.wait_for(Drain().leave(notice_s=60, grace_s=0), 5)


async def test_new_work_is_refused_with_a_time_to_come_back(client: httpx.AsyncClient, parts: Parts) -> None:
    await parts.drain.leave(0, 0)
    refused = await client.post("/v1/slides", files={"file": b"bytes"})

    assert refused.status_code == 503
    assert refused.json()["code"] == "draining"
    assert refused.headers["Retry-After"] == "2"
    assert refused.headers["Connection"] == "close"
    assert refused.headers["Content-Type"] == "application/problem+json"


async def test_openai_clients_are_refused_in_their_envelope(
    client: httpx.AsyncClient, parts: Parts, ready: SlideRecord
) -> None:
    await parts.drain.leave(0, 0)
    refused = await client.post(CHAT, json=chat(ready.id, stream=True))

    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "draining"


async def test_health_is_answered_to_the_end(client: httpx.AsyncClient, parts: Parts) -> None:
    await parts.drain.leave(0, 0)

    assert (await client.get("/livez")).status_code == 200
    assert (await client.get("/readyz")).status_code == 503
    assert (await client.get("/metrics")).status_code == 200


async def test_it_waits_for_the_answer_that_runs(
    client: httpx.AsyncClient, parts: Parts, vllm: FakeVllm, ready: SlideRecord
) -> None:
    vllm.hold_before = 1
    asking = asyncio.create_task(client.post(f"/v1/slides/{ready.id}/questions", json=question()))
    await one_stream(vllm)
    leaving = asyncio.create_task(parts.drain.leave(0, grace_s=60))
    await asyncio.sleep(0.05)
    assert not leaving.done()
    vllm.streams[0].go_on.set()

    answer = await asking
    await asyncio.wait_for(leaving, 5)
    assert "event: done" in answer.text


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("route", ["question", "chat"])
async def test_an_answer_beyond_the_grace_ends_with_an_error(
    client: httpx.AsyncClient, parts: Parts, vllm: FakeVllm, ready: SlideRecord, route: str, stream: bool
) -> None:
    vllm.hold_before = 1
    path, body = (
        (f"/v1/slides/{ready.id}/questions", question(stream))
        if route == "question"
        else (CHAT, chat(ready.id, stream))
    )
    asking = asyncio.create_task(client.post(path, json=body))
    await one_stream(vllm)

    await asyncio.wait_for(parts.drain.leave(0, grace_s=0.05), 5)
    answer = await asyncio.wait_for(asking, 5)

    assert "draining" in answer.text
    assert "event: done" not in answer.text
    assert answer.status_code == (200 if stream else 503)
    assert vllm.streams[0].closed.is_set()


async def test_followers_of_a_slide_are_sent_on(client: httpx.AsyncClient, parts: Parts, app: FastAPI) -> None:
    slide = await stored_slide(parts)
    following = asyncio.create_task(client.get(f"/v1/slides/{slide.id}/events"))
    await asyncio.sleep(0.05)

    await asyncio.wait_for(parts.drain.leave(0, grace_s=60), 10)

    assert (await following).text == ""


SERVER = """
import signal, sys, uvicorn
from starlette.applications import Starlette
from server.api.drain import Drain, DrainingServer

signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background hands on that it is ignored

class Asked(DrainingServer):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        signal.raise_signal(int(sys.argv[1]))

Asked(uvicorn.Config(Starlette(), port=0, log_config=None), Drain(), 0, 1).run()
"""


@pytest.mark.parametrize(("asked", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, -signal.SIGINT)])
def test_leaving_when_asked_is_no_failure_and_an_interrupt_is_one(asked: signal.Signals, code: int) -> None:
    ended = subprocess.run([sys.executable, "-c", SERVER, str(int(asked))], capture_output=True, text=True, timeout=60)

    assert ended.returncode == code, ended.stderr
