"""Two of everything, as processes behind a real HAProxy: API, encoder worker, vLLM; one Redis, one store.

What a cluster is made of, small enough for two cores. Replicas are killed, drained and started by the tests.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil  # type: ignore[import-untyped]
from features_files import TRIDENT_ATTRIBUTES, write_hdf5
from haproxy_process import RunningHaproxy, running_haproxy, servers_file, wait_until
from running_server import metric
from untrained_model import changed_manifest, untrained_model

from loadtests.answer_streams import AnswerClient, AnswerFailed, Request, StreamedAnswer
from model_store.installed import InstalledModel
from server.commands.up import http_probe
from server.machine.redis_server import answers, choose_server, free_loopback_port, prepare_redis
from server.machine.supervise import die_with_parent

# Two cores that also run other tests, and two vLLMs that start at once.
START_TIMEOUT_S = 600.0
DRAIN_NOTICE_S = 1.0
GRACE_S = 30
COUNT = 2
# Not `demo`: that name is installed anew from what ships with Eyepiece. Deep and in small batches, so that a slide
# takes a second or two and can be hit in the middle.
MODEL = "replicas"
_CHANGES = (
    ('name = "demo"', f'name = "{MODEL}"'),  # the served name too
    ("depth = 2, num_classes", "depth = 16, num_classes"),
    ("batch_tiles = 32", "batch_tiles = 2"),
)
_SETTINGS = {
    "PYTHONSAFEPATH": "1",
    "OMP_NUM_THREADS": "1",
    "EYEPIECE_MODEL": MODEL,
    "EYEPIECE_DRAIN_NOTICE_S": str(DRAIN_NOTICE_S),
    "EYEPIECE_SHUTDOWN_GRACE_S": str(GRACE_S),
    # A killed worker's slide is taken up again after seconds, not after the half minute that suits a busy cluster.
    "EYEPIECE_JOB_HEARTBEAT_S": "6",
    "EYEPIECE_JOB_SWEEP_S": "1",
    # Fixed, so that the slides of the tests are divided among the replicas in the same way each time.
    "EYEPIECE_LLM_API_KEY": "replicas-of-a-test",
    # One process less, and twelve seconds less to start.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
# An answer is longer than what the API's health checks get through the same frontend.
_HEALTH_ANSWER_BYTES = 1000
# Few enough that the workers keep up.
_UPLOADS, _UPLOAD_PAUSE_S = 10, 0.5
QUESTIONS = ("What tissue is this?", "Is there necrosis?", "How would you grade the tumour?")


@dataclass
class Replica:
    """One process that can be killed, drained and started again; `name` is HAProxy's, where HAProxy knows it."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    port: int
    ready_path: str
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The process itself, past HAProxy."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return None if self.process is None else self.process.poll()

    def start(self) -> None:
        """Starts it, unless it runs. Not from a thread: the process would end with it (server.machine.supervise)."""
        if self.process is not None and self.exit_code is None:
            return
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )

    def is_ready(self) -> bool:
        """Whether its health check says so; fails the test when it has ended instead."""
        assert self.exit_code is None, self.log.read_text()[-4000:]
        return http_probe("127.0.0.1", self.port, self.ready_path)()

    async def die(self) -> None:
        """As when its container or its machine is gone: the whole group, at once."""
        assert self.process is not None
        self._signal_group(signal.SIGKILL)
        await asyncio.to_thread(self.process.wait)

    async def leave(self) -> float:
        """SIGTERM; seconds until it has ended by itself, which it has to within the grace."""
        assert self.process is not None
        started = time.monotonic()
        self.process.terminate()
        await asyncio.to_thread(self.process.wait, GRACE_S + 10)
        return time.monotonic() - started

    def stop(self) -> None:
        """At the end of everything."""
        if self.process is None:
            return
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_S)
        self._signal_group(signal.SIGKILL)
        self.process.wait()

    def sample(self, name: str) -> float:
        """The sum of a metric over its labels."""
        text = httpx.get(f"{self.url}/metrics").text
        rows = [line.rsplit(" ", 1)[0] for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} "))]
        return sum(metric(text, row) for row in rows)

    def is_encoding(self) -> bool:
        """Whether this worker has a slide open, with pixels in it."""
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.pid).children(recursive=True)
            return any("reader_child" in argument for child in children for argument in child.cmdline())
        return False

    def _signal_group(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


@dataclass(frozen=True)
class ReplicaStack:
    """All of them; `model` is served by all."""

    apis: list[Replica]
    workers: list[Replica]
    llms: list[Replica]
    haproxy: RunningHaproxy
    haproxy_log: Path
    store: Path
    model: InstalledModel

    def become_whole(self) -> None:
        """Starts what does not run, and returns when everything is ready, in HAProxy's eyes too."""
        replicas = (*self.llms, *self.workers, *self.apis)
        for replica in replicas:
            replica.start()
        for replica in replicas:
            wait_until(replica.is_ready, START_TIMEOUT_S)
        for backend, known in (("api", self.apis), ("llm", self.llms)):
            for replica in known:
                self.haproxy.wait_for(backend, replica.name, "UP")

    def broken(self, backend: str, since: int) -> Counter[str]:
        """How many exchanges each server of a backend broke off, by HAProxy's log from line `since` on.

        Of those that it had been sent; one that could not connect (`SC`) is for somebody else to answer.
        """
        records = [json.loads(line) for line in self.proxied()[since:]]
        return Counter(it["server"] for it in records if it["backend"] == backend and it["ended"][:2] in ("SH", "SD"))

    def servers_asked(self, since: int) -> list[str]:
        """Which vLLM got each question, in the order in which the answers ended."""
        records = [json.loads(line) for line in self.proxied()[since:]]
        return [it["server"] for it in records if it["backend"] == "llm" and it["bytes"] > _HEALTH_ANSWER_BYTES]

    def sessions(self, backend: str, server: str) -> int:
        """How many exchanges run there now."""
        header, *rows = self.haproxy.say(f"show stat {backend} 4 -1").lstrip("# ").splitlines()
        found = [dict(zip(header.split(","), row.split(","), strict=False)) for row in rows if row]
        return next(int(row["scur"]) for row in found if row["svname"] == server)

    def proxied(self) -> list[str]:
        """HAProxy's lines about exchanges that are over."""
        return [line for line in self.haproxy_log.read_text().splitlines() if line.startswith('{"event":"proxied"')]

    def client(self) -> httpx.Client:
        """A client of the API, through HAProxy."""
        return httpx.Client(base_url=self.haproxy.clients_url, timeout=120.0)


@contextmanager
def running_replicas(folder: Path) -> Iterator[ReplicaStack]:
    """The whole stack until the block ends; the block starts when everything is ready."""
    model = small_model(folder / "data/models")
    api_ports, worker_ports, llm_ports = ([free_loopback_port() for _ in range(COUNT)] for _ in range(3))
    with ExitStack() as stack:
        haproxy = stack.enter_context(running_haproxy(folder, servers_file(folder, api_ports, llm_ports)))
        redis_url = stack.enter_context(_running_redis(folder))
        shared = {"EYEPIECE_REDIS_URL": redis_url, "EYEPIECE_LLM_URL": haproxy.llm_url}
        environment = {**os.environ, **_SETTINGS, **shared, "EYEPIECE_DATA_DIR": str(folder / "data")}

        def replicas(kind: str, command: str, ports: Sequence[int], ready_path: str) -> list[Replica]:
            made = []
            for number, port in enumerate(ports, 1):
                how = (sys.executable, "-m", "server", command, *([] if kind == "worker" else ["--port", str(port)]))
                own = {**environment, "EYEPIECE_WORKER_PORT": str(port)}
                log = folder / f"{kind}{number}.log"
                made.append(Replica(f"{kind}{number}", how, own, port, ready_path, log))
                stack.callback(made[-1].stop)
            return made

        running = ReplicaStack(
            apis=replicas("api", "api", api_ports, "/readyz"),
            workers=replicas("worker", "worker", worker_ports, "/readyz"),
            llms=replicas("vllm", "llm", llm_ports, "/health"),
            haproxy=haproxy,
            haproxy_log=folder / "haproxy.log",
            store=folder / "data/store/tenants/default/slides",
            model=model,
        )
        stack.callback(lambda: _stop_together((*running.apis, *running.workers, *running.llms)))
        running.become_whole()
        yield running


def _stop_together(replicas: Sequence[Replica]) -> None:
    """In turn they would take a grace each."""
    with ThreadPoolExecutor(len(replicas)) as pool:
        list(pool.map(Replica.stop, replicas))


@contextmanager
def _running_redis(folder: Path) -> Iterator[str]:
    launch = prepare_redis(choose_server(folder / "redis"), folder / "redis")
    with (folder / "redis.log").open("wb") as log, subprocess.Popen(launch.command, stdout=log, stderr=log) as process:
        try:
            wait_until(lambda: answers(launch.url))
            yield launch.url
        finally:
            process.terminate()


def small_model(models_dir: Path) -> InstalledModel:
    """The untrained model under another name and with a slower tile encoder; always the same bytes."""
    return untrained_model(models_dir, text=changed_manifest(*_CHANGES))


def feature_slide(path: Path, seed: int) -> Path:
    """A slide that is uploaded as features: encoded in an instant, like no other."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((24, 192)).astype(np.float32)
    coords = np.array([(256 * x, 256 * y) for y in range(4) for x in range(6)], dtype=np.int64)
    return write_hdf5(path, features, coords, **TRIDENT_ATTRIBUTES)


async def ask_once(url: str, slide_id: str, question: str, **options: Any) -> StreamedAnswer:
    """One question on a connection of its own, which is closed afterwards.

    Raises:
        AnswerFailed: there is no whole answer.
    """
    on_first_text: Callable[[], None] = options.pop("on_first_text", lambda: None)
    headers: Mapping[str, str] = options.pop("headers", {})
    body = json.dumps({"question": question, "temperature": 0, **options}).encode()
    client = AnswerClient()
    try:
        return await client.ask(Request(f"{url}/v1/slides/{slide_id}/questions", body, headers), on_first_text)
    finally:
        await client.close()


def key_headers(key: str | None) -> dict[str, str]:
    """What a client with that key sends along; without one nothing."""
    return {"Authorization": f"Bearer {key}"} if key else {}


@dataclass
class Tally:
    """What became of the questions and uploads under load."""

    right: int = 0
    wrong: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    accepted: list[str] = field(default_factory=list)

    @property
    def failures(self) -> int:
        """Of questions and uploads."""
        return sum(self.failed.values())

    def __str__(self) -> str:
        failed = dict(self.failed) or 0
        return f"{self.right} right, {self.wrong} wrong, {failed} failed; {len(self.accepted)} slides accepted"


class Load:
    """Clients that ask without a pause, and one that uploads, until `stop`; every answer is compared."""

    def __init__(
        self,
        url: str,
        expected: Mapping[tuple[str, str], str],
        folder: Path,
        key: str | None = None,
        make_slide: Callable[[Path, int], Path] = feature_slide,
    ) -> None:
        """`url` is HAProxy's; `expected` has the undisturbed answer to each question about each slide."""
        self._make_slide = make_slide
        self._url = url
        self._headers = key_headers(key)
        self._expected = list(expected.items())
        self._folder = folder
        self._stopped = False
        self._tasks: list[asyncio.Task[None]] = []
        self.tally = Tally()

    def start(self, clients: int) -> None:
        """Begins."""
        asking = [self._ask_on(first) for first in range(clients)]
        self._tasks = [asyncio.create_task(it) for it in (*asking, self._upload_on())]

    async def more(self, answers: int) -> None:
        """Until so many more answers are there, right, wrong or failed."""
        target = self._finished() + answers
        while self._finished() < target:
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.02)

    async def stop(self) -> Tally:
        """Lets what runs end."""
        self._stopped = True
        await asyncio.gather(*self._tasks)
        return self.tally

    def _finished(self) -> int:
        return self.tally.right + self.tally.wrong + self.tally.failures

    async def _ask_on(self, number: int) -> None:
        while not self._stopped:
            (slide_id, question), answer = self._expected[number % len(self._expected)]
            number += 1
            try:
                given = await ask_once(self._url, slide_id, question, headers=self._headers)
            except AnswerFailed as error:
                self.tally.failed[str(error)] += 1  # with its words: the same code stands for several reasons
                continue
            if given.text == answer:
                self.tally.right += 1
            else:
                self.tally.wrong += 1

    async def _upload_on(self) -> None:
        path = self._folder / "uploaded-under-load.h5"
        # A request that is not the first of its connection HAProxy would break off without an answer or a line in its
        # log, for the client to try again.
        closing = {"Connection": "close", **self._headers}
        async with httpx.AsyncClient(base_url=self._url, timeout=120.0, headers=closing) as client:
            while not self._stopped and len(self.tally.accepted) < _UPLOADS:
                content = self._make_slide(path, int.from_bytes(os.urandom(3))).read_bytes()
                try:
                    answer = await client.post("/v1/slides", files={"file": ("features.h5", content)})
                except httpx.TransportError:
                    self.tally.failed["upload broken"] += 1
                    continue
                if answer.status_code == 202:
                    self.tally.accepted.append(answer.json()["id"])
                else:
                    self.tally.failed[f"upload {answer.status_code}"] += 1
                await asyncio.sleep(_UPLOAD_PAUSE_S)


def wait_for_slides(client: httpx.Client, slide_ids: Sequence[str], timeout_s: float = 120.0) -> dict[str, str]:
    """The status of each slide when all are through, or time is up."""

    deadline = time.monotonic() + timeout_s
    while True:
        statuses = {it: client.get(f"/v1/slides/{it}").json()["status"] for it in slide_ids}
        if set(statuses.values()) <= {"ready", "failed"} or time.monotonic() > deadline:
            return statuses
        time.sleep(0.2)
