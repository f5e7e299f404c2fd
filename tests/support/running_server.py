"""A real Eyepiece for end-to-end tests: `eyepiece up` as an operator starts it, and a client to it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from contract import CheckedSyncClient, contract_at

from server.machine.redis_server import free_loopback_port
from server.machine.supervise import die_with_parent

# Two cores that also run other tests: vLLM alone may take minutes to start.
_START_TIMEOUT_S = 600.0
# A killed worker's slide is taken up again after seconds, not after the half minute that suits a busy cluster.
# Tests that make keys share it with those that have none.
_IMPATIENT = {"EYEPIECE_JOB_HEARTBEAT_S": "6", "EYEPIECE_JOB_SWEEP_S": "1", "EYEPIECE_KEEP_KEYLESS": "true"}


@dataclass(frozen=True)
class RunningServer:
    """Where it listens and where its state is."""

    url: str
    data_dir: Path
    process: psutil.Process

    def client(self, key: str | None = None) -> httpx.Client:
        """A client of the API that holds answers against its document."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return CheckedSyncClient(contract_at(self.url), base_url=self.url, headers=headers, timeout=120.0)

    def environment_of(self, name: str) -> str:
        """A variable that `up` gave to the API: where Redis and vLLM are, this time."""
        return self._environment("api")[name]

    def worker_metric(self, sample: str) -> float:
        """The value of a sample of the worker, 0 when it has not happened yet."""
        port = self._environment("worker")["EYEPIECE_WORKER_PORT"]
        return metric(httpx.get(f"http://127.0.0.1:{port}/metrics").text, sample)

    def _environment(self, component: str) -> dict[str, str]:
        """Of the first process of that component; others may come and go meanwhile."""
        for child in self.process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if component in child.cmdline():
                    return child.environ()
        raise AssertionError(f"no process of the {component} runs")

    def api_metric(self, sample: str) -> float:
        """The value of a sample of the API."""
        with self.client() as client:
            return metric(client.get("/metrics").text, sample)

    def llm_metric(self, name: str) -> float:
        """The sum of a vLLM metric over its labels."""
        text = httpx.get(f"{self.environment_of('EYEPIECE_LLM_URL')}/metrics").text
        rows = [line for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
        return sum(float(row.rsplit(" ", 1)[1]) for row in rows)


def metric(text: str, sample: str) -> float:
    """One sample of a Prometheus page, e.g. `eyepiece_questions_total{outcome="answered"}`."""
    for line in text.splitlines():
        if line.startswith(f"{sample} "):
            return float(line.rsplit(" ", 1)[1])
    return 0.0


@contextmanager
def running_server(
    data_dir: Path, log: Path, *models: str, program: str = "server", **variables: str
) -> Iterator[RunningServer]:
    """`eyepiece up` until the block ends; the block starts when it says that it is ready. `models` go to the command
    line, the demo model where there are none and no EYEPIECE_MODELS among the environment's `variables`. `program` is
    the module of the command line: another one may start something in vLLM's place."""
    port = free_loopback_port()
    reading, writing = os.pipe()
    command = [sys.executable, "-m", program, "up", "--port", str(port), "--data-dir", str(data_dir)]
    named = models or (() if "EYEPIECE_MODELS" in variables else ("demo",))
    command += [part for model in named for part in ("--model", model)]
    with log.open("wb") as output, open(reading, "rb") as notifications:
        process = subprocess.Popen(
            [*command, "--notify-fd", str(writing)],
            pass_fds=(writing,),
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_IMPATIENT, **variables, "PYTHONSAFEPATH": "1"},
            preexec_fn=die_with_parent(15),
        )
        os.close(writing)
        try:
            assert notifications.read() == b"ready\n", log.read_text()
            yield RunningServer(f"http://127.0.0.1:{port}", data_dir, psutil.Process(process.pid))
        finally:
            process.terminate()
            process.wait(_START_TIMEOUT_S)


def upload(client: httpx.Client, path: Path) -> dict[str, Any]:
    """Upload a slide and wait for its last event; the Slide afterwards."""
    with path.open("rb") as file:
        answer = client.post("/v1/slides", files={"file": (path.name, file)})
    assert answer.status_code in (200, 202), answer.text
    slide_id = answer.json()["id"]
    wait_for_outcome(client, slide_id)
    slide: dict[str, Any] = client.get(f"/v1/slides/{slide_id}").json()
    return slide


def wait_for_outcome(client: httpx.Client, slide_id: str) -> str:
    """Follow the slide's events to the end; `ready` or `failed`."""
    with client.stream("GET", f"/v1/slides/{slide_id}/events") as events:
        names = [line.removeprefix("event: ") for line in events.iter_lines() if line.startswith("event: ")]
    return names[-1]


def ask(client: httpx.Client, slide_id: str, question: str, **options: Any) -> dict[str, Any]:
    """Ask without streaming; the body of the answer."""
    answer = client.post(f"/v1/slides/{slide_id}/questions", json={"question": question, "stream": False, **options})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body
