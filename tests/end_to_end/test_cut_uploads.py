"""A slide of gigabytes through twenty cuts, a kill of the API and a change of replica, sent by others' clients too.

`make resumable`. EYEPIECE_CUT_UPLOAD_MB (2000) is its size. Two API processes have one store and one Redis.
"""

import hashlib
import importlib.util
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]
import pytest
from cutting_line import CuttingLine

from model_store.packaged_models import open_or_install
from server.commands.api_client import ApiClient
from server.commands.send_slide import SlideSender
from server.commands.slide_files import slide_files
from server.commands.upload_notes import UploadNotes
from server.machine.redis_server import answers, find_servers, free_loopback_port, prepare_redis
from synthetic.write_slide import write_synthetic_slide

ROOT = Path(__file__).parents[2]
SIZE_MB = int(os.environ.get("EYEPIECE_CUT_UPLOAD_MB", "2000"))
CUTS, KILLED_AT, MOVED_AT = 20, 7, 13
MOST_GROWTH_MB = 64
JS_MODULES = ROOT / "build" / "tus-js"


class Replica:
    """`eyepiece api`."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.port = free_loopback_port()
        self._environment = environment | {"EYEPIECE_PORT": str(self.port)}
        self._log = Path(environment["EYEPIECE_DATA_DIR"]) / f"api-{self.port}.log"
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "server", "api"]
            self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log, cwd=ROOT)
        until = time.monotonic() + 240
        while time.monotonic() < until:
            assert self._process.poll() is None, self._log.read_text()[-2000:]
            try:
                if httpx.get(f"{self.url}/livez", timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.2)
        raise AssertionError("the API did not start")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def memory_mb(self) -> float:
        return float(psutil.Process(self._process.pid).memory_info().rss) / 2**20

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)


class Stack:
    """Two replicas, and how much memory each has had at most since it was measured first."""

    def __init__(self, replicas: list[Replica]) -> None:
        self.replicas = replicas
        self.first_mb: dict[int, float] = {}
        self.most_mb: dict[int, float] = {}

    @contextmanager
    def watched(self) -> Iterator[None]:
        over = threading.Event()
        self.first_mb, self.most_mb = {}, {}

        def watch() -> None:
            while not over.wait(0.1):
                for number, replica in enumerate(self.replicas):
                    try:
                        memory = replica.memory_mb
                    except psutil.Error:  # killed at this moment: the next one begins anew
                        self.first_mb.pop(number, None)
                        continue
                    self.first_mb.setdefault(number, memory)
                    self.most_mb[number] = max(memory, self.most_mb.get(number, 0.0))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("cut")
    launch = prepare_redis(find_servers()[0], folder / "redis", max_memory_mb=64)
    redis = subprocess.Popen(launch.command, stdout=subprocess.DEVNULL)
    while not answers(launch.url):
        time.sleep(0.05)
    open_or_install(folder / "models", "demo")
    environment = os.environ | {
        "EYEPIECE_DATA_DIR": str(folder),
        "EYEPIECE_REDIS_URL": launch.url,
        "EYEPIECE_LLM_URL": f"http://127.0.0.1:{free_loopback_port()}",
        "EYEPIECE_DISK_RESERVE_BYTES": "0",
    }
    replicas = [Replica(environment) for _ in range(2)]
    warm_up(replicas, folder)
    yield Stack(replicas)
    for replica in replicas:
        replica.stop()
    redis.terminate()
    redis.wait(30)


def warm_up(replicas: list[Replica], folder: Path) -> None:
    """A first upload makes an API load what it needs for any."""
    for number, replica in enumerate(replicas):
        path = folder / f"first-{number}.svs"
        write_synthetic_slide(path, seed=100 + number, width_px=1024, height_px=768)
        with ApiClient(replica.url) as client:
            notes = UploadNotes(replica.url, path, folder / "state")
            SlideSender(client, lambda name, sent: None).send(slide_files(path), notes)


@pytest.fixture
def slide(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Path, str]]:
    """A slide of SIZE_MB, by a tail of noise, and its SHA-256."""
    path = tmp_path / "slide.svs"
    seed = sum(request.node.name.encode())
    write_synthetic_slide(path, seed=seed, width_px=1024, height_px=768)
    noise = random.Random(seed).randbytes(2**20)
    digest = hashlib.sha256(path.read_bytes())
    with path.open("ab") as file:
        for number in range(SIZE_MB):
            piece = number.to_bytes(8, "big") + noise[8:]
            file.write(piece)
            digest.update(piece)
    yield path, digest.hexdigest()
    path.unlink()


@contextmanager
def cut(stack: Stack, size_bytes: int, seed: int) -> Iterator[CuttingLine]:
    """A line to the first replica, which is killed and started again on the way; later to the second."""
    first, second = stack.replicas
    cuts = sorted(random.Random(seed).sample(range(1, size_bytes), CUTS))

    def on_cut(number: int) -> None:
        if number == KILLED_AT:
            first.kill()
            first.start()
        if number == MOVED_AT:
            line.target = ("127.0.0.1", second.port)

    line = CuttingLine(("127.0.0.1", first.port), cuts, on_cut)
    with line, stack.watched():
        yield line


def require_whole(stack: Stack, line: CuttingLine, sha256: str) -> None:
    """All cuts were made, the slide is the one that was sent, nothing is left, and memory stayed flat."""
    assert line.cuts_made == CUTS
    found = httpx.get(f"{stack.replicas[0].url}/v1/slides/{sha256}", timeout=300)
    assert found.status_code == 200, found.text
    # What was killed and started again has had no upload to warm up with: only the one that lived on is held to it.
    grown_mb = stack.most_mb[1] - stack.first_mb[1]
    print(f"\n{SIZE_MB} MB, {CUTS} cuts: the API that took over grew by {grown_mb:.0f} MB")
    httpx.delete(f"{stack.replicas[0].url}/v1/slides/{sha256}", timeout=300)
    assert grown_mb <= MOST_GROWTH_MB


@pytest.mark.skipif(importlib.util.find_spec("tusclient") is None, reason="tuspy is not installed")
def test_tuspy(stack: Stack, slide: tuple[Path, str]) -> None:
    path, sha256 = slide
    with cut(stack, path.stat().st_size, 1) as line:
        script = ROOT / "tests" / "support" / "tuspy_upload.py"
        command = [sys.executable, str(script), f"{line.url}/v1/uploads", str(path), str(64 * 2**20)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)
    assert ran.returncode == 0, ran.stderr
    require_whole(stack, line, sha256)


@pytest.mark.skipif(shutil.which("node") is None or not JS_MODULES.is_dir(), reason="make resumable installs it")
def test_tus_js_client(stack: Stack, slide: tuple[Path, str]) -> None:
    path, sha256 = slide
    with cut(stack, path.stat().st_size, 2) as line:
        script = ROOT / "tests" / "support" / "tus_js_upload.mjs"
        command = ["node", str(script), str(JS_MODULES), f"{line.url}/v1/uploads", str(path), "0"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split()[-1] == sha256
    require_whole(stack, line, sha256)


def test_eyepiece_upload(stack: Stack, slide: tuple[Path, str], tmp_path: Path) -> None:
    path, sha256 = slide
    with cut(stack, path.stat().st_size, 3) as line, ApiClient(line.url) as client:
        notes = UploadNotes(line.url, path, tmp_path / "state")
        made = SlideSender(client, lambda name, sent: None).send(slide_files(path), notes)
    assert made["id"] == sha256
    require_whole(stack, line, sha256)
