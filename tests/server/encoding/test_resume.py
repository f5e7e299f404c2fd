"""A worker is killed with three slides in hand; another one goes on with each of them where it stopped.

Real processes, a real Redis, SIGKILL, a model of tiles and one of regions. A worker that encodes the same slide
undisturbed is the measure.
"""

import asyncio
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import h5py
import httpx
import psutil
import pytest
from api_parts import lose_lease, make_due, until
from held_worker import Hold, start_worker
from redis.asyncio import Redis
from running_server import metric

from encoders.embedding_file import from_bytes
from encoders.encoder_id import encoder_id
from encoders.types import Stage
from model_store.installed import InstalledModel, open_model
from model_store.packaged_models import PACKAGED
from server.encoding.encode_worker import WorkerQueue
from server.encoding.jobs import EncodeJobs
from server.settings import Settings
from server.slides.catalogue import SlideCatalogue
from server.slides.progress import ProgressLog
from server.slides.slide_record import SlideRecord
from server.storage.slide_store import SlideStore, open_store
from synthetic.write_slide import write_sample_slide

# What the same bytes are called: an id a story.
HALF, NINE_TENTHS, IN_SLIDE_ENCODER, UNDISTURBED = "abcd"


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of model: the size of a slide with `least` tiles or regions, its stages that plan and that count them, and
    what its features file holds.

    Of so many, nine tenths are passed before the last one is done: tiles are done two at a time, regions singly."""

    size_px: tuple[int, int]
    least: int
    planned: Stage
    counted: Stage
    arrays: tuple[str, ...]


KINDS = {
    "tiles": Kind((2560, 1792), 20, "tile", "encode_tiles", ("coords", "features")),
    "regions": Kind(
        (3584, 3072),
        10,
        "find_regions",
        "encode_regions",
        (
            "regions/coords",
            "regions/features",
            "slide/features",
            "patches/index",
            "patches/features",
            "cells/features",
            *(f"cells/found/{name}" for name in ("patch", "centroid", "kind", "outline_start", "outline")),
        ),
    ),
}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def model(kind: Kind, request: pytest.FixtureRequest) -> InstalledModel:
    if kind is KINDS["regions"]:
        return open_model(PACKAGED, "demo-hierarchical")
    demo: InstalledModel = request.getfixturevalue("demo_model")
    return demo


@dataclasses.dataclass(frozen=True)
class Cluster:
    """What workers share, and the records of the slides that they are given."""

    kind: Kind
    settings: Settings
    store: SlideStore
    jobs: EncodeJobs
    slides: SlideCatalogue
    progress: ProgressLog
    source: bytes

    def source_of(self, name: str) -> bytes:
        """The same tiles for every name, and another identity."""
        return self.source + name.encode()

    def id_of(self, name: str) -> str:
        return hashlib.sha256(self.source_of(name)).hexdigest()

    async def queue_slide(self, name: str) -> SlideRecord:
        source = self.source_of(name)
        record = self.slides.new_record("default", self.id_of(name), "x.svs", len(source))
        await self.store.put(record.paths.source, source)
        await self.slides.create(record)
        await self.jobs.enqueue(record)
        return record

    async def kept(self, record: SlideRecord) -> int:
        names = await self.store.objects(record.paths.parts(record.encoder_id))
        return sum(int(name.partition("-")[2].removesuffix(".safetensors")) for name in names)

    async def result(self, record: SlideRecord) -> tuple[bytes, ...]:
        """All numbers that came out."""
        embedding = from_bytes(await self.store.get(record.paths.embedding(record.encoder_id)) or b"")
        async with self.store.local_file(record.paths.features(record.encoder_id)) as path:
            with h5py.File(path) as file:
                arrays = [file[name][()] for name in self.kind.arrays]
        tensors = [embedding.tensors[name] for name in sorted(embedding.tensors)]
        return tuple(array.tobytes() for array in [*arrays, *tensors])

    async def started_at(self, record: SlideRecord) -> int:
        """The tile or region at which the last attempt started, as its progress says."""
        events: list[dict[str, Any]] = []
        async for event in self.progress.follow(record.tenant, record.id, "0-0"):
            if event is None or event.is_last:
                break
            events.append(event.data)
        last_attempt = max(index for index, data in enumerate(events) if data.get("stage") == self.kind.planned)
        return next(int(data["done"]) for data in events[last_attempt:] if data.get("stage") == self.kind.counted)


@pytest.fixture
async def cluster(kind: Kind, settings: Settings, redis: Redis, model: InstalledModel, tmp_path: Path) -> Cluster:
    # Leases end when the test says so, however slow the machine is.
    patient = settings.model_copy(
        update={
            "model": model.manifest.name,
            "job_heartbeat_s": 600,
            "job_sweep_s": 600,
            "slides_at_once": 3,
            "worker_port": 0,
        }
    )
    write_sample_slide(tmp_path / "slide.svs", seed=7, width_px=kind.size_px[0], height_px=kind.size_px[1])
    store = open_store(patient)
    slides = SlideCatalogue(store, redis, partial(encoder_id, model))
    jobs, progress = EncodeJobs(redis, patient), ProgressLog(redis, 600)
    return Cluster(kind, patient, store, jobs, slides, progress, (tmp_path / "slide.svs").read_bytes())


@pytest.fixture
def start(cluster: Cluster, model: InstalledModel) -> Iterator[Callable[..., ForkServerProcess]]:
    """Starts a worker; none outlives the test."""
    started: list[ForkServerProcess] = []

    def start_one(holds: Mapping[str, Hold]) -> ForkServerProcess:
        started.append(start_worker(cluster.settings, model.folder.parent, holds))
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.join()


def health_port(worker: ForkServerProcess) -> int:
    """Where a worker whose port was left to the machine listens."""
    (port,) = {
        one.laddr.port for one in psutil.Process(worker.pid).net_connections("tcp") if one.status == psutil.CONN_LISTEN
    }
    return int(port)


async def end_leases(cluster: Cluster, redis: Redis, records: list[SlideRecord]) -> None:
    """Time passes until the jobs of a dead worker are delivered again."""
    queue = WorkerQueue(cluster.jobs)
    for record in records:
        job = await cluster.jobs.find(record)
        assert job is not None
        await lose_lease(queue, job)
    await make_due(queue, redis)


async def test_a_killed_workers_slides_go_on_where_they_stopped(
    cluster: Cluster, start: Callable[..., ForkServerProcess], redis: Redis, tmp_path: Path
) -> None:
    holds = {
        HALF: Hold(cluster.kind.counted, 0.5, tmp_path / "half"),
        NINE_TENTHS: Hold(cluster.kind.counted, 0.9, tmp_path / "nine-tenths"),
        IN_SLIDE_ENCODER: Hold("encode_slide", 0.0, tmp_path / "in-slide-encoder"),
    }
    records = [await cluster.queue_slide(name) for name in holds]
    victim = start({cluster.id_of(name): hold for name, hold in holds.items()})
    # torch is imported first, which a busy machine takes its time for.
    await until(lambda: all(hold.marker.exists() for hold in holds.values()), within_s=300.0)

    victim.kill()
    await asyncio.to_thread(victim.join)
    kept = [await cluster.kept(record) for record in records]
    await end_leases(cluster, redis, records)
    undisturbed = await cluster.queue_slide(UNDISTURBED)
    survivor = start({})
    everything = [*records, undisturbed]
    await until(all_ready(cluster, everything), within_s=300.0)

    expected = await cluster.result(undisturbed)
    places = from_bytes(await cluster.store.get(undisturbed.paths.embedding(undisturbed.encoder_id)) or b"").tile_count
    assert [await cluster.result(record) for record in records] == [expected] * 3
    assert all(count > 0 for count in kept)
    assert places >= cluster.kind.least
    # A part is due when a second has passed, so which of two slides in the middle has kept more is a matter of time.
    assert max(kept[0], kept[1]) < kept[2] == places
    assert [await cluster.started_at(record) for record in everything] == [*kept, 0]
    page = (await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{health_port(survivor)}/metrics")).text
    assert metric(page, "eyepiece_tiles_resumed_total") == sum(kept)
    assert metric(page, "eyepiece_tiles_encoded_total") == 4 * places - sum(kept)
    assert metric(page, 'eyepiece_slides_opened_total{reader="fast_tiff",reason="eligible"}') == 4
    if cluster.kind is KINDS["tiles"]:
        assert metric(page, "eyepiece_tile_encoder_busy_seconds_total") > 0
    assert [await cluster.store.folders(record.paths.all_parts) for record in everything] == [[]] * 4
    survivor.terminate()
    await asyncio.to_thread(survivor.join)
    assert survivor.exitcode == 0


def all_ready(cluster: Cluster, records: list[SlideRecord]) -> Callable[[], "asyncio.Future[bool]"]:
    async def ready() -> bool:
        last = [await cluster.progress.last(record.tenant, record.id) for record in records]
        assert not any(event and event.name == "failed" for event in last), last
        return all(event and event.name == "ready" for event in last)

    return lambda: asyncio.ensure_future(ready())
