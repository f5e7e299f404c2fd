"""The journey of a slide, as its users make it: upload → wait until it is ready → a question → follow-ups.

    export EYEPIECE_LOAD_SLIDE=sample.svs
    locust -f loadtests/locustfile.py --host http://127.0.0.1:8000 --headless --users 8 --spawn-rate 2 --run-time 5m

EYEPIECE_LOAD_SLIDE names the TIFF slide that is uploaded (`eyepiece make-slide` draws one). Bytes that differ each time
are put behind its end, where no TIFF reader looks, so that each upload is a slide of its own. EYEPIECE_API_KEY is sent
where it is set. `first token` is the time from sending a question to the first `token` event, `whole answer` to `done`.

It needs nothing but locust, which has an environment of its own: it brings a pytest plugin and gevent along.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from locust import HttpUser, between, task

FIRST_QUESTION = "What tissue is this?"
FOLLOW_UPS = ("Is there necrosis?", "How would you grade the tumour?")
READY_WITHIN_S = 600.0


class JourneyError(Exception):
    """The journey cannot go on: the code of an `error` event, or how the slide failed."""


class Clinician(HttpUser):  # type: ignore[misc]  # locust has no types
    """Takes some seconds to read an answer."""

    wait_time = between(0.5, 2.0)

    def on_start(self) -> None:
        """Who asks."""
        if key := os.environ.get("EYEPIECE_API_KEY"):
            self.client.headers["Authorization"] = f"Bearer {key}"

    @task  # type: ignore[untyped-decorator]
    def journey(self) -> None:
        """One slide from beginning to end; it is deleted afterwards."""
        slide_id = self._upload()
        if slide_id is None or not self._wait_until_ready(slide_id):
            return
        conversation_id = self._ask(slide_id, "first question", FIRST_QUESTION)
        for question in FOLLOW_UPS if conversation_id else ():
            time.sleep(self.wait_time())  # `wait` would end a journey when time is up
            self._ask(slide_id, "follow-up", question, conversation_id)
        self.client.delete(f"/v1/slides/{slide_id}", name="delete")

    def _upload(self) -> str | None:
        files = {"file": ("load.svs", slide_bytes() + os.urandom(16))}
        with self.client.post("/v1/slides", files=files, name="upload", catch_response=True) as answer:
            if answer.status_code != 202:
                answer.failure(f"{answer.status_code}")
                return None
            return str(answer.json()["id"])

    def _wait_until_ready(self, slide_id: str) -> bool:
        started, error = time.perf_counter(), JourneyError("broken")
        path = f"/v1/slides/{slide_id}/events"
        with closing(self.client.get(path, name="events", stream=True, timeout=READY_WITHIN_S)) as answer:
            for name, data in events(answer):
                if name == "ready":
                    self._note("slide ready", time.perf_counter() - started)
                    return True
                if name == "failed":
                    error = JourneyError(data["code"])
        self._note("slide ready", time.perf_counter() - started, error)
        return False

    def _ask(self, slide_id: str, kind: str, question: str, conversation_id: str | None = None) -> str | None:
        body = {"question": question, **({"conversation_id": conversation_id} if conversation_id else {})}
        started, first_s = time.perf_counter(), None
        path = f"/v1/slides/{slide_id}/questions"
        asked = self.client.post(path, json=body, name=f"{kind}: headers", stream=True, timeout=120.0)
        with closing(asked) as answer:
            for name, data in events(answer):
                if name == "token" and first_s is None:
                    first_s = time.perf_counter() - started
                    self._note(f"{kind}: first token", first_s)
                if name in ("done", "error"):
                    error = JourneyError(data["code"]) if name == "error" else None
                    self._note(f"{kind}: whole answer", time.perf_counter() - started, error)
                    return None if error else str(data["conversation_id"])
        self._note(f"{kind}: whole answer", time.perf_counter() - started, JourneyError("broken"))
        return None

    def _note(self, name: str, seconds: float, error: Exception | None = None) -> None:
        self.environment.events.request.fire(
            request_type="SSE", name=name, response_time=1000 * seconds, response_length=0, exception=error, context={}
        )


def events(answer: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and data of the events of a stream, as they come; nothing of a refusal."""
    name = ""
    for line in answer.iter_lines(chunk_size=None) if answer.ok else ():
        if line.startswith(b"event: "):
            name = line[7:].decode()
        elif line.startswith(b"data: "):
            yield name, json.loads(line[6:])


@cache
def slide_bytes() -> bytes:
    """What is uploaded, before what makes it unlike any other."""
    return Path(os.environ["EYEPIECE_LOAD_SLIDE"]).read_bytes()
