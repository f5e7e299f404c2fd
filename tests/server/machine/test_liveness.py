"""A process that is there and does nothing is ended and started again; one that is busy, or only starts, is not."""

import os
import signal
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import psutil
import pytest
from stand_in_server import stand_in
from supervised import PATIENCE_S, QUICK, Changes, component, stop_ourselves

from server.commands.up import http_probe
from server.machine.liveness import Liveness, makes_tokens
from server.machine.redis_server import free_loopback_port
from server.machine.supervise import Change, Supervisor

SERVE = """
import http.server, sys
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), http.server.SimpleHTTPRequestHandler)
server.serve_forever()
"""


def test_a_stopped_process_is_killed_and_started_again(tmp_path: Path) -> None:
    port = free_loopback_port()
    served = component(tmp_path, "served", SERVE)
    answers = http_probe("127.0.0.1", port, "/")
    liveness = Liveness(answers, failures=1, every_s=0.01)
    served = replace(served, command=(*served.command, str(port)), is_ready=answers, liveness=liveness)
    pids: list[int] = []

    def stop_it_once(change: Change) -> None:
        if change.state == "ready":
            pids.append(supervisor.components()[0].pid or 0)
            if len(pids) == 2:
                stop_ourselves()
            else:
                os.kill(pids[0], signal.SIGSTOP)

    changes = Changes(stop_it_once)
    with Supervisor(changes, QUICK) as supervisor:
        supervisor.start(served)
        supervisor.run()

    states = [change.state for change in changes.all]
    assert states == ["starting", "ready", "hung", "exited", "starting", "ready", "stopped"]
    assert len(set(pids)) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_one_answer_among_failures_is_enough_and_nobody_is_asked_who_has_ended() -> None:
    answers = iter([False, True, False, False])
    asked = Event()

    def is_alive() -> bool:
        answer = next(answers, None)
        if answer is None:
            asked.set()
        return bool(answer)

    liveness = Liveness(is_alive, failures=4, every_s=0.0)
    liveness.begin()
    assert asked.wait(PATIENCE_S)
    liveness.pause()
    assert not liveness.hung
    liveness.begin()
    assert not liveness.hung
    liveness.end()


class Vllm(BaseHTTPRequestHandler):
    """A vLLM server whose engine, another process, may be stopped."""

    engine = Event()
    status = 200

    def do_GET(self) -> None:
        self._answer(200, b'{"data": [{"id": "demo"}]}')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.engine.is_set():
            self._answer(self.status, b"{}")
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.mark.parametrize(("status", "is_alive"), [(200, True), (400, True), (500, False)])
def test_vllm_is_alive_when_its_engine_answers(status: int, is_alive: bool) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Vllm,), {"status": status, "engine": Event()}))
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    asks = makes_tokens("127.0.0.1", server.server_port, "key", timeout_s=PATIENCE_S)
    try:
        stopped = asks()
        server.RequestHandlerClass.engine.set()  # type: ignore[attr-defined]
        assert (stopped, asks()) == (False, is_alive)
    finally:
        server.shutdown()
        server.server_close()


def test_a_server_that_speaks_of_something_else_makes_no_tokens() -> None:
    with stand_in("other") as other:
        assert not makes_tokens("127.0.0.1", other.port, "key", timeout_s=PATIENCE_S)()
