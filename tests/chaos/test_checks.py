"""The checks of a run, each against what it must find: a check that finds nothing proves nothing."""

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil
import pytest
from chaos.audit import JobCounts, job_counts, redis_findings, store_findings
from chaos.clients import Answered, Asker, Follower, Notes
from chaos.fingerprint import fingerprint
from chaos.judge import answer_findings, poison_findings
from chaos.plan import VICTIMS, kill_plan, shared_out
from chaos.report import Poisoned
from chaos.strays import watched_strays
from fakes import sample_embedding

from encoders.embedding_file import to_bytes

READY, FAILED, ENCODER = "ab" * 32, "cd" * 32, "e" * 16
EMBEDDING = sample_embedding(READY, ENCODER)


FAILED_PLACE = f"failed/default/82041/23/456780-{FAILED}"


def put(name: str, content: bytes = b"x") -> Callable[[Path], None]:
    def plant(store: Path) -> None:
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_bytes(content)

    return plant


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """What is left when a slide is ready, another one has failed, and one worker lives."""
    slides = tmp_path / "tenants/default/slides"
    for place in (f"all/default/82041/23/456789-{READY}", f"all/default/82041/23/456780-{FAILED}", FAILED_PLACE):
        put(f"index/{place}", b"")(tmp_path)
    files = {
        f"{READY}/slide.json": b"{}",
        f"{READY}/source/slide": b"slide",
        f"{READY}/features/{ENCODER}.h5": b"features",
        f"{READY}/embeddings/{ENCODER}.safetensors": to_bytes(EMBEDDING),
        f"{FAILED}/slide.json": b"{}",
        f"{FAILED}/source/slide": b"slide",
    }
    for name, content in files.items():
        (slides / name).parent.mkdir(parents=True, exist_ok=True)
        (slides / name).write_bytes(content)
    lock = tmp_path / "staging/worker-here-1/lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    return tmp_path


def found_in(store: Path) -> list[str]:
    return list(store_findings(store, {READY: fingerprint(EMBEDDING)}, {FAILED}, workers=1))


def test_a_store_as_it_should_be_gives_no_finding(store: Path) -> None:
    assert found_in(store) == []


SLIDE = f"tenants/default/slides/{READY}"
OTHER_TENSORS = to_bytes(sample_embedding(READY, ENCODER, value=0.25))


@pytest.mark.parametrize(
    ("plant", "finding"),
    [
        (put(f"{SLIDE}/parts/{ENCODER}/000000000-1.safetensors"), f"orphan: {READY[:12]}/parts/{ENCODER}/"),
        (lambda store: (store / SLIDE / "parts").mkdir(), f"orphan: {READY[:12]}/parts"),
        (put(f"{SLIDE}/embeddings/{'f' * 16}.safetensors"), f"orphan: {READY[:12]}/embeddings/ffff"),
        (put(f"{SLIDE}/slide.json#1"), f"orphan: {READY[:12]}/slide.json#1"),
        (put(f"{SLIDE}/embeddings/{ENCODER}.safetensors", OTHER_TENSORS), "different:"),
        (lambda store: (store / SLIDE / f"features/{ENCODER}.h5").unlink(), "lost:"),
        (lambda store: (store / SLIDE).rename(store / "gone"), "lost: the store has no slide"),
        (put(f"tenants/default/slides/{FAILED}/features/{ENCODER}.h5"), "orphan: cdcd"),
        (put(f"tenants/default/slides/{'0' * 64}/slide.json"), "orphan: nobody uploaded 0000"),
        (lambda store: (store / "index" / FAILED_PLACE).unlink(), f"lost: {FAILED[:12]} is not on the shelf failed"),
        (put(f"index/pending/default/82041/23/456789-{READY}"), f"orphan: {READY[:12]} is on the shelf pending"),
        (put(f"index/all/default/82041/23/456788-{READY}"), f"duplicate: {READY[:12]} is on the shelf all"),
        (lambda store: (store / "index/pending/x").mkdir(parents=True), "orphan: the shelf pending has an empty"),
        (put("staging/0123/0"), "orphan: staging/0123"),
        (put("staging/worker-here-1/0123"), "orphan: staging/worker-here-1/0123"),
        (put("staging/worker-here-2/lock", b""), "orphan: 2 workers"),
    ],
)
def test_what_is_too_much_missing_or_different_in_the_store_is_found(
    store: Path, plant: Callable[[Path], None], finding: str
) -> None:
    plant(store)

    assert any(each.startswith(finding) for each in found_in(store))


class FakeRedis:
    """Keys with their values; those in `lasting` have no TTL."""

    def __init__(self, values: dict[str, Any], lasting: set[str]) -> None:
        self._values = values
        self._lasting = lasting

    def scan_iter(self, match: str = "", count: int = 0) -> list[bytes]:
        return [name.encode() for name in self._values if name.startswith(match.rstrip("*"))]

    def ttl(self, key: bytes) -> int:
        return -1 if key.decode() in self._lasting else 60

    def hkeys(self, name: str) -> list[bytes]:
        return [field.encode() for field in self._values[name]]

    def get(self, key: bytes) -> bytes:
        return orjson.dumps(self._values[key.decode()])


JOB = "saq:job:eyepiece-routine:a"


@pytest.mark.parametrize(
    ("key", "value", "lasts", "kind"),
    [
        (f"eyepiece:{{default}}:embeddings:{READY}", b"", False, None),
        ("eyepiece:{default}:conversation:conv_1", b"", False, None),
        ("eyepiece:workers", b"", True, None),
        ("eyepiece:webhooks:events", b"", True, None),
        ("eyepiece:{default}:slide-names", {f"8204123456789-{READY}": ""}, False, None),
        ("eyepiece:{default}:slide-names", {f"8204123456789-{'0' * 64}": ""}, False, "which is no slide"),
        ("eyepiece:{default}:slide-names", {f"8204123456789-{READY}": ""}, True, "stays for ever"),
        (JOB, {"status": "complete"}, False, None),
        (f"eyepiece:{{default}}:embeddings:{READY}", b"", True, "stays for ever"),
        (f"eyepiece:{{default}}:events:{'0' * 64}", b"", False, "is of no slide"),
        ("saq:eyepiece-routine:incomplete", b"", True, "stays for ever"),
        (JOB, {"status": "complete"}, True, "stays for ever"),
        (JOB, {"status": "aborting"}, False, "is aborting"),
        (JOB, {"status": "queued"}, True, "is queued"),
    ],
)
def test_what_redis_should_not_have_is_found(key: str, value: Any, lasts: bool, kind: str | None) -> None:
    redis: Any = FakeRedis({key: "" if value == b"" else value}, {key} if lasts else set())

    found = list(redis_findings(redis, {READY}))

    assert any(kind in each for each in found) if kind else found == []


def test_lost_leases_and_errors_are_counted_apart() -> None:
    jobs = {
        "saq:job:undisturbed": {"attempts": 1, "result": "ready"},
        "saq:job:killed-twice": {"attempts": 3, "result": "known"},
        "saq:job:one-error-one-kill": {"attempts": 3, "result": "ready", "meta": {"errors": 1}},
        "saq:job:poisoned": {"attempts": 3, "result": "gave_up", "meta": {"errors": 3}},
    }
    redis: Any = FakeRedis(jobs, set())

    assert job_counts(redis) == JobCounts(jobs=4, starts=10, errors=4, lost_leases=3)


@pytest.mark.parametrize(("answer", "kinds"), [("benign", []), ("malignant", ["wrong"])])
def test_a_wrong_answer_is_found(answer: str, kinds: list[str]) -> None:
    right = {(READY, "What is it?"): "benign"}

    found = answer_findings([Answered(READY, "What is it?", answer)], right)

    assert [each.partition(":")[0] for each in found] == kinds


@pytest.mark.parametrize(("code", "doses", "fine"), [("unreadable_slide", 3, True), ("ready", 3, False)])
def test_a_poisoned_slide_must_fail(code: str, doses: int, fine: bool) -> None:
    assert (not list(poison_findings(Poisoned("reader dies", doses, code, 0)))) is fine


@pytest.mark.parametrize("doses", [0, 6])
def test_a_poisoned_slide_must_be_tried_and_not_for_ever(doses: int) -> None:
    assert list(poison_findings(Poisoned("worker dies", doses, "unreadable_slide", 0)))


def event(name: str, event_id: str | None, **data: Any) -> bytes:
    lines = [f"event: {name}", f"data: {orjson.dumps(data).decode()}", *([f"id: {event_id}"] if event_id else [])]
    return ("\n".join(lines) + "\n\n").encode()


PROGRESS = {"stage": "tile", "done": 0, "total": 1}
UNAVAILABLE = event("error", None, code="queue_unavailable", detail="")


async def followed(*streams: bytes) -> tuple[Follower, Notes, list[str | None]]:
    """A follower that was given these streams one after another, and from where it asked for each."""
    notes, waiting, asked_from = Notes(), list(streams), []

    def answer(request: httpx.Request) -> httpx.Response:
        asked_from.append(request.headers.get("Last-Event-ID"))
        return httpx.Response(200, content=waiting.pop(0))

    async def ignore(*_: object) -> None:
        pass

    follower = Follower(READY, notes, ignore)
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://api") as client:
        await follower.follow(client)
    return follower, notes, asked_from


async def test_a_broken_stream_is_followed_on_from_its_last_event() -> None:
    streams = event("progress", "1-0", **PROGRESS) + UNAVAILABLE, event("ready", "2-0")

    follower, notes, asked_from = await followed(*streams)

    assert asked_from == [None, "1-0"]
    assert follower.seen == ["1-0", "2-0"]
    assert (notes.findings, notes.errors, notes.resumed) == ([], Counter({"follow: queue_unavailable": 1}), 1)


@pytest.mark.parametrize(
    ("streams", "finding"),
    [
        ((event("progress", "1-0", **PROGRESS), event("ready", "2-0")), "end in silence"),
        ((event("progress", "2-0", **PROGRESS) + event("ready", "1-9"),), "came again"),
        ((event("ready", "1-0") + event("ready", "2-0"),), "behind the last event"),
        ((event("error", None, code="internal_error"), event("ready", "1-0")), "none that a client can wait out"),
    ],
)
async def test_what_a_follower_should_not_see_is_found(streams: tuple[bytes, ...], finding: str) -> None:
    _, notes, _ = await followed(*streams)

    assert any(finding in each for each in notes.findings)


@pytest.mark.parametrize(
    ("stream", "finding"),
    [
        (event("token", None, text="be") + event("token", None, text="nign"), "in silence"),
        (event("token", None, text="be") + event("done", None, answer="benign"), "not what was streamed"),
    ],
)
async def test_what_an_asker_should_not_see_is_found(stream: bytes, finding: str) -> None:
    notes = Notes()
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=stream))

    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        await Asker([READY], notes, random.Random(0), 0.0).ask(client, READY, "What is it?")

    assert any(finding in each for each in notes.findings)


def test_a_process_that_outlives_its_parent_is_found() -> None:
    with watched_strays() as strays:
        subprocess.run(["sh", "-c", f"{sys.executable} -c 'import time; time.sleep(600)' &"], check=True)
        found = strays.processes()
        for child in psutil.Process().children():
            if child.pid not in strays.ours:
                child.kill()
                child.wait()

        assert len(found) == 1
        assert "time.sleep(600)" in found[0] or "sh" in found[0]
        assert strays.processes() == []


def test_the_seed_fixes_who_is_killed_at_what() -> None:
    victims = shared_out(30)

    assert kill_plan(1, 60, victims) == kill_plan(1, 60, victims) != kill_plan(2, 60, victims)
    assert Counter(kill.victim for kill in kill_plan(1, 60, victims)) == victims
    assert len({kill.slide for kill in kill_plan(1, 60, victims)}) == 30


@pytest.mark.parametrize("kills", [4, 5, 7, 12, 30, 41, 100])
def test_every_kind_of_victim_has_its_share(kills: int) -> None:
    victims = shared_out(kills)

    assert victims.total() == kills
    assert set(victims) == set(VICTIMS)
    assert min(victims.values()) >= 1
