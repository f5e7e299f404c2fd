"""Notices a process that is there and does nothing: stopped, or hung. An exit code would never tell.

A thread of its own asks, so that a silent process delays nobody. What counts is failures in a row, not time: a machine
that slept, or a supervisor that was stopped itself, finds nobody guilty. Only a process that was ready is watched: one
that loads a model answers nothing for minutes. A worker's health is answered by a thread, also while it encodes.
"""

import json
import threading
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException


class Liveness:
    """Asks `is_alive` every `every_s` from `begin` to `pause`; `hung` after `failures` answers of no in a row."""

    def __init__(self, is_alive: Callable[[], bool], failures: int, every_s: float = 2.0) -> None:
        self._is_alive = is_alive
        self._allowed = failures
        self._every_s = every_s
        self._failed = 0
        self._round = 0
        self._watching = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def hung(self) -> bool:
        """Whether the process has not answered for long enough."""
        return self._watching.is_set() and self._failed >= self._allowed

    def begin(self) -> None:
        """The process is ready: watch it from now on."""
        self._round += 1
        self._failed = 0
        self._watching.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, daemon=True, name="liveness")
            self._thread.start()

    def pause(self) -> None:
        """The process has ended."""
        self._watching.clear()

    def end(self) -> None:
        """Never ask again."""
        self._ended.set()
        self._watching.set()

    def _watch(self) -> None:
        while not self._ended.wait(self._every_s):
            self._watching.wait()
            asked_in = self._round
            is_alive = self._is_alive()
            if asked_in == self._round:  # else the answer is about the process before
                self._failed = 0 if is_alive else self._failed + 1


def makes_tokens(host: str, port: int, key: str, timeout_s: float) -> Callable[[], bool]:
    """Asks a vLLM server for one token: its health is answered by another process than the one that makes them.

    An error of the request's own (4xx) is an answer too; a server that cannot take questions says so with 5xx.
    """
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def has_made_one() -> bool:
        connection = HTTPConnection(host, port, timeout=timeout_s)
        try:
            connection.request("GET", "/v1/models", headers=headers)
            model = json.loads(connection.getresponse().read())["data"][0]["id"]
            body = json.dumps({"model": model, "prompt": ".", "max_tokens": 1})
            connection.request("POST", "/v1/completions", body, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status < 500
        except (OSError, HTTPException, ValueError, LookupError, TypeError):
            return False
        finally:
            connection.close()

    return has_made_one
