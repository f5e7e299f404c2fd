"""What may be left when all slides are through, and nothing else: in the store, in Redis, in the logs of jobs.

Each look gives sentences; none is good. Nothing is looked at twice, nothing is waited for.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from chaos.fingerprint import Fingerprint, stored_fingerprint
from redis import Redis

_TENANT_FOLDER = "tenants/default/slides"
# A sorted set of words that expire by their score (server.encoding.worker_presence); it is one small key for ever.
# Events are bounded in number, and cleared once a minute where nobody is to be told (server.upkeep.webhook_delivery).
_LASTING_KEYS = frozenset({"eyepiece:workers", "eyepiece:write-probe", "eyepiece:webhooks:events"})
_ENDED = frozenset({"complete", "failed", "aborted"})


@dataclass(frozen=True)
class JobCounts:
    """What jobs say of themselves at the end: starts, those that ended in an error, and those that nobody has heard of
    again because their worker was killed or could not be heard."""

    jobs: int = 0
    starts: int = 0
    errors: int = 0
    lost_leases: int = 0


def store_findings(
    store: Path, expected: Mapping[str, Fingerprint], failed: Collection[str], workers: int
) -> Iterator[str]:
    """`expected` embeddings by slide id, whose slides are ready; `failed` slides have a source and a record only; each
    of so many living `workers` has a staging folder with a lock in it."""
    slides = store / _TENANT_FOLDER
    there = {folder.name for folder in slides.iterdir()}
    yield from (f"lost: the store has no slide {slide_id[:12]}" for slide_id in {*expected, *failed} - there)
    yield from (f"orphan: nobody uploaded {name[:12]}" for name in there - {*expected, *failed})
    for slide_id, wanted in expected.items():
        yield from _slide_findings(slides / slide_id, wanted)
    for slide_id in failed:
        yield from _misplaced(slides / slide_id, {"slide.json", "source/slide"})
    yield from _index_findings(store / "index", {*expected, *failed}, failed)
    yield from _staging_findings(store / "staging", workers)


def _index_findings(index: Path, stored: Collection[str], failed: Collection[str]) -> Iterator[str]:
    """Every slide is listed once, and stands nowhere else once it is through."""
    for shelf, wanted in (("all", stored), ("failed", failed), ("pending", ())):
        entries = sorted((index / shelf).rglob("*"))
        ids = [path.name[-64:] for path in entries if path.is_file()]
        yield from (f"lost: {slide_id[:12]} is not on the shelf {shelf}" for slide_id in {*wanted} - {*ids})
        yield from (f"orphan: {slide_id[:12]} is on the shelf {shelf}" for slide_id in ids if slide_id not in wanted)
        yield from (f"duplicate: {it[:12]} is on the shelf {shelf} twice" for it in {*ids} if ids.count(it) > 1)
        yield from (
            f"orphan: the shelf {shelf} has an empty folder" for it in entries if it.is_dir() and not any(it.iterdir())
        )


def _staging_findings(staging: Path, workers: int) -> Iterator[str]:
    folders = sorted(staging.glob("worker-*"))
    entries = set(staging.rglob("*")) - {*folders, *(folder / "lock" for folder in folders)}
    yield from (f"orphan: staging/{path.relative_to(staging)}" for path in sorted(entries))
    if len(folders) > workers:
        yield f"orphan: {len(folders)} workers have a folder in staging, {workers} live"


def _slide_findings(folder: Path, wanted: Fingerprint) -> Iterator[str]:
    encoder = wanted[1]
    embedding = f"embeddings/{encoder}.safetensors"
    yield from _misplaced(folder, {"slide.json", "source/slide", embedding, f"features/{encoder}.h5"})
    if (folder / embedding).exists() and stored_fingerprint(folder / embedding) != wanted:
        yield f"different: the embedding of {folder.name[:12]} is not that of an undisturbed run"


def _misplaced(folder: Path, wanted: set[str]) -> Iterator[str]:
    """Files that are missing or too many, and folders with nothing in them."""
    entries = list(folder.rglob("*"))
    files = {str(path.relative_to(folder)) for path in entries if path.is_file()}
    empty = {str(path.relative_to(folder)) for path in entries if path.is_dir() and not any(path.iterdir())}
    yield from (f"lost: {folder.name[:12]}/{name}" for name in sorted(wanted - files))
    yield from (f"orphan: {folder.name[:12]}/{name}" for name in sorted((files - wanted) | empty))


def redis_findings(redis: Redis, slide_ids: Collection[str]) -> Iterator[str]:
    """Keys that will not go by themselves, jobs that did not end, keys of slides that nobody has."""
    for key in sorted(redis.scan_iter(count=500)):
        name = key.decode()
        if name in _LASTING_KEYS:
            continue
        if redis.ttl(key) == -1:
            yield f"orphan: the key {name} stays for ever"
        elif name.endswith("}:slide-names"):  # one for all slides of a tenant, by their entries in the index
            others = [entry.decode()[-64:] for entry in redis.hkeys(name)]  # type: ignore[union-attr]
            yield from (f"orphan: {name} has {it[:12]}, which is no slide" for it in others if it not in slide_ids)
        elif name.startswith("eyepiece:{") and not _is_of(name, slide_ids):
            yield f"orphan: the key {name} is of no slide"
    yield from (f"orphan: {job}" for job in unfinished_jobs(redis))


def unfinished_jobs(redis: Redis) -> Iterator[str]:
    """Jobs that wait, run, or are being ended or delivered again; each with its status."""
    for key, job in _jobs(redis):
        if job["status"] not in _ENDED:
            yield f"the job {key} is {job['status']}"


def _is_of(name: str, slide_ids: Collection[str]) -> bool:
    """Conversations have ids of their own."""
    return ":conversation:" in name or any(slide_id in name for slide_id in slide_ids)


def job_counts(redis: Redis) -> JobCounts:
    """Sums over the jobs that Redis remembers: one a slide, as it was queued last."""
    jobs = [job for _, job in _jobs(redis)]
    starts, errors = (sum(each) for each in zip(*map(_starts_and_errors, jobs), strict=True)) if jobs else (0, 0)
    # The last start of a job ends it: by an error that was one too many, or well.
    ended_well = sum(job.get("result") != "gave_up" for job in jobs)
    return JobCounts(len(jobs), starts, errors, starts - errors - ended_well)


def _jobs(redis: Redis) -> Iterator[tuple[str, dict[str, Any]]]:
    for key in redis.scan_iter(match="saq:job:*", count=500):
        if (content := redis.get(key)) is not None:
            yield key.decode(), orjson.loads(content)


def _starts_and_errors(job: Mapping[str, Any]) -> tuple[int, int]:
    return int(job.get("attempts", 0)), int(job.get("meta", {}).get("errors", 0))


def said_ready(redis: Redis, slide_id: str) -> tuple[int, list[str]]:
    """How often the slide's events say `ready`, and the ids of all events up to the first time."""
    entries: Any = redis.xrange(f"eyepiece:{{default}}:events:{slide_id}")
    names = [fields[b"name"].decode() for _, fields in entries]
    upto = names.index("ready") + 1 if "ready" in names else len(names)
    return names.count("ready"), [entry_id.decode() for entry_id, _ in entries[:upto]]
