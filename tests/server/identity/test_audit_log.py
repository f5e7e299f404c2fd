"""The audit log: what was acknowledged is there, and whatever is done to its files is found."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from fhir_schema import require_r4

from server.errors import AuditUnavailable
from server.identity.audit_chain import AuditEvent, AuditLine, Chain, link, read_line
from server.identity.audit_export import audit_events, lines_of
from server.identity.audit_log import ANCHORS_FOLDER, AuditLog
from server.identity.audit_verify import Verification, verification
from server.storage.slide_store import SlideStore

LINES, WRITERS = 10_000, 4
EVENT = AuditEvent(
    at=datetime(2026, 11, 29, 17, 0, tzinfo=UTC),
    action="GET /v1/slides/{slide_id}",
    outcome=200,
    tenant="a",
    who="eyp_AbCdEf",
    slide="5e" * 32,
    purpose="TREAT",
    request_id="6f1c2f9d8b7a4e10",
)


@pytest.fixture
def store(tmp_path: Path) -> SlideStore:
    return SlideStore(f"file://{tmp_path}/store", tmp_path / "scratch")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


async def written(folder: Path, store: SlideStore, each: int, writers: int = WRITERS, ends: bool = True) -> None:
    """A folder with as many lines of each writer, which all write at once."""
    logs = [AuditLog(folder) for _ in range(writers)]
    await asyncio.gather(*(log.write(replace(EVENT, request_id=f"{n:016x}")) for n in range(each) for log in logs))
    for log in logs:
        await (log.aclose(store) if ends else log.anchor(store))


async def verified(folder: Path, store: SlideStore) -> Verification:
    found = await verification([folder], store)
    for _ in found.read([folder]):
        pass
    return found


def one_line_each(folder: Path) -> dict[Path, list[bytes]]:
    return {path: path.read_bytes().splitlines(keepends=True) for path in sorted(folder.glob("*.jsonl"))}


def fits(chain: Chain, *texts: bytes) -> bool:
    """Whether lines fit behind what was followed so far, which is left as it is."""
    chain = replace(chain)
    for text in texts:
        line = read_line(text)
        if line is None or chain.follow(line) is not None:
            return False
    return True


async def test_each_single_removal_change_and_swap_of_10_000_lines_by_4_writers_is_found(
    folder: Path, store: SlideStore
) -> None:
    await written(folder, store, LINES // WRITERS)
    whole = await verified(folder, store)
    assert (whole.flaws, whole.lines, len(whole.chains), whole.open_ends) == ([], LINES + 2 * WRITERS, WRITERS, 0)
    tried = 0
    for lines in one_line_each(folder).values():
        chain = Chain()
        for place, text in enumerate(lines):
            line = read_line(text)
            assert line is not None
            at = (place * 7919) % len(text)
            changed = text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :]
            behind = lines[place + 1 : place + 2]
            assert not fits(chain, changed, *behind), (place, "changed")
            if behind:  # what is taken from the end is found by the marks: the next test
                assert not fits(chain, *behind), (place, "removed")
                assert not fits(chain, *behind, text), (place, "swapped")
            assert chain.follow(line) is None
            tried += 1
    assert tried == LINES + 2 * WRITERS


def removed(lines: list[bytes], at: int) -> list[bytes]:
    return lines[:at] + lines[at + 1 :]


def swapped(lines: list[bytes], at: int) -> list[bytes]:
    other = (at + 3) % len(lines)
    moved = list(lines)
    moved[at], moved[other] = moved[other], moved[at]
    return moved


def repeated(lines: list[bytes], at: int) -> list[bytes]:
    return [*lines[: at + 1], *lines[at:]]


def forged(lines: list[bytes], at: int) -> list[bytes]:
    """Another event with a right hash of its own in place of the line."""
    line = read_line(lines[at])
    assert line is not None
    return [
        *lines[:at],
        link(replace(EVENT, who="somebody else"), line.writer, line.n, line.before)[0],
        *lines[at + 1 :],
    ]


def cut_off(lines: list[bytes], at: int) -> list[bytes]:
    return lines[:at]


def cut_within(lines: list[bytes], at: int) -> list[bytes]:
    return [*lines[:at], lines[at][: len(lines[at]) // 2]]


def without_its_break(lines: list[bytes], at: int) -> list[bytes]:
    return [*lines[:-1], lines[-1].rstrip(b"\n")]


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("change", [removed, swapped, repeated, forged, cut_off, cut_within, without_its_break])
async def test_whatever_is_done_to_a_file_is_found_at_its_ends_too(
    folder: Path, store: SlideStore, change: Callable[[list[bytes], int], list[bytes]], ends: bool
) -> None:
    await written(folder, store, 12, writers=2, ends=ends)
    for path, lines in one_line_each(folder).items():
        for at in range(len(lines)):
            path.write_bytes(b"".join(change(lines, at)))
            assert (await verified(folder, store)).flaws != [], (at, len(lines))
        path.write_bytes(b"".join(lines))
    assert (await verified(folder, store)).flaws == []


async def test_files_that_are_gone_or_were_put_under_another_name_are_found(folder: Path, store: SlideStore) -> None:
    await written(folder, store, 3, writers=2)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        path.unlink()
        assert (await verified(folder, store)).flaws != [], path.name
        path.write_bytes(content)
    first, second = one_line_each(folder)
    first.rename(folder / "aside")
    second.rename(first)
    assert (await verified(folder, store)).flaws != []


async def test_who_cuts_lines_off_and_writes_the_head_anew_does_not_reach_the_anchor(
    folder: Path, store: SlideStore
) -> None:
    await written(folder, store, 5, writers=1)
    ((path, lines),) = one_line_each(folder).items()
    last = read_line(lines[2])
    assert last is not None
    path.write_bytes(b"".join(lines[:3]))
    (head,) = folder.glob("*.head")
    head.write_text(f"{last.n:020d} {last.hash}\n")

    (flaw,) = (await verified(folder, store)).flaws
    assert "anchor" in flaw.what
    for gone in (path, head):
        gone.unlink()
    assert len((await verified(folder, store)).flaws) == 1


async def test_a_log_that_is_written_to_meanwhile_is_no_flaw(folder: Path, store: SlideStore) -> None:
    log = AuditLog(folder)
    await log.write(EVENT)
    found = await verification([folder], store)
    await log.write(EVENT)
    for _ in found.read([folder]):
        pass
    await log.aclose(store)

    assert (found.flaws, found.lines, found.open_ends) == ([], 3, 1)


async def test_a_day_has_a_file_of_its_own_and_the_chain_goes_on(
    folder: Path, store: SlideStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(folder)
    for day in (28, 29, 30):
        monkeypatch.setattr("server.identity.audit_log.now", lambda day=day: datetime(2026, 11, day, tzinfo=UTC))
        await log.write(EVENT)
    await log.aclose(store)

    assert [path.name[:10] for path in sorted(folder.glob("*.jsonl"))] == ["2026-11-28", "2026-11-29", "2026-11-30"]
    assert (await verified(folder, store)).flaws == []
    sorted(folder.glob("*.jsonl"))[1].unlink()
    assert (await verified(folder, store)).flaws != []


async def test_a_disk_that_fails_ends_the_chain_and_refuses_all_that_waited(
    folder: Path, store: SlideStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(folder)
    await log.write(EVENT)
    first = log.writer
    with monkeypatch.context() as broken:
        broken.setattr(os, "write", lambda _, content: len(content) // 2)
        results = await asyncio.gather(*(log.write(EVENT) for _ in range(5)), return_exceptions=True)
    assert [type(result) for result in results] == [AuditUnavailable] * 5
    with pytest.raises(AuditUnavailable):  # a moment later still
        await log.write(EVENT)
    monkeypatch.setattr("server.identity.audit_log.time.monotonic", lambda: 1e12)
    await log.write(EVENT)
    await log.aclose(store)

    assert log.writer != first
    found = await verified(folder, store)
    assert (found.flaws, len(found.chains), found.open_ends) == ([], 2, 1)


_WRITES_UNTIL_KILLED = """
import asyncio, os, sys
from pathlib import Path
from server.identity.audit_chain import AuditEvent
from server.identity.audit_log import AuditLog
from server.slides.slide_record import now

async def client(log, number):
    for n in range(10**6):
        await log.write(AuditEvent(at=now(), action="GET /", request_id=f"{number}-{n}"))
        os.write(1, f"{number}-{n}\\n".encode())  # acknowledged

async def main():
    log = AuditLog(Path(sys.argv[1]))
    await asyncio.gather(*(client(log, number) for number in range(8)))

asyncio.run(main())
"""


def acknowledged_until_killed(folder: Path) -> set[str]:
    """The requests that a process had acknowledged when it was killed, in the middle of writing."""
    program = [sys.executable, "-c", _WRITES_UNTIL_KILLED, str(folder)]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline() for _ in range(200)]
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.readlines()
    return {name.decode().strip() for name in acknowledged if name.endswith(b"\n")}


async def test_a_process_that_is_killed_loses_no_line_that_it_acknowledged(folder: Path, store: SlideStore) -> None:
    names = await asyncio.to_thread(acknowledged_until_killed, folder)
    (path,) = folder.glob("*.jsonl")
    lines = [read_line(text) for text in path.read_bytes().splitlines(keepends=True) if text.endswith(b"\n")]

    assert len(names) >= 200
    assert names <= {line.said.get("request_id") for line in lines if line is not None}
    found = await verified(folder, store)
    assert (found.flaws, found.open_ends) == ([], 1)


async def test_anchors_are_written_once_for_each_state(folder: Path, store: SlideStore) -> None:
    log = AuditLog(folder)
    await log.anchor(store)
    assert await store.folders(ANCHORS_FOLDER) == []
    for _ in range(2):
        await log.write(EVENT)
        await log.anchor(store)
        await log.anchor(store)
    assert len(await store.objects(f"{ANCHORS_FOLDER}/{log.writer}")) == 2
    await log.aclose(store)


def read_back(folder: Path) -> list[AuditLine]:
    found = [read_line(text) for lines in one_line_each(folder).values() for text in lines]
    return [line for line in found if line is not None]


async def test_an_export_is_of_one_tenant_and_its_lines_are_as_written(folder: Path, store: SlideStore) -> None:
    log = AuditLog(folder)
    for tenant in ("a", "b", "a"):
        await log.write(replace(EVENT, tenant=tenant))
    await log.aclose(store)

    of_a = list(lines_of(read_back(folder), "a", None))
    assert [line.said["tenant"] for line in of_a] == ["a", "a"]
    assert all(read_line(line.text) == line for line in of_a)
    assert list(lines_of(read_back(folder), "a", datetime(2026, 11, 30, tzinfo=UTC))) == []


async def test_a_fhir_event_has_what_r4_requires_and_a_change_is_told_once(folder: Path, store: SlideStore) -> None:
    log = AuditLog(folder)
    change = replace(EVENT, action="DELETE /v1/slides/{slide_id}")
    begun = await log.write(replace(change, phase="begun", outcome=None))
    await log.write(replace(change, outcome=204, begun=begun))
    await log.write(replace(EVENT, outcome=404, purpose=None))
    await log.write(replace(change, phase="begun", outcome=None))  # and killed
    await log.write(replace(EVENT, action="tenants erase", erased={"slides": 3}))
    await log.aclose(store)

    events = [orjson.loads(line) for line in audit_events(lines_of(read_back(folder), "a", None))]
    told = [(it["action"], it["outcome"]) for it in events]
    assert told == [("D", "0"), ("R", "4"), ("E", "0"), ("D", "8")]
    assert events[2]["outcomeDesc"] == "tenants erase: done"
    assert {"type": "slides", "valueString": "3"} in events[2]["entity"][-1]["detail"]
    for event in events:
        require_r4(event)
        assert event["resourceType"] == "AuditEvent"
        assert {"system", "code"} <= event["type"].keys()
        assert datetime.fromisoformat(event["recorded"]) == EVENT.at
        assert [agent["requestor"] for agent in event["agent"]] == [True]
        assert event["agent"][0]["who"]["identifier"]["value"] == "eyp_AbCdEf"
        assert event["source"]["observer"]["identifier"]["value"] == log.writer
        assert event["source"]["site"] == "a"
        assert event["entity"][0]["what"]["identifier"] == {"system": "urn:eyepiece:slide", "value": "5e" * 32}
        # sev-1: an entity has a name or a query, not both; and every detail has a value.
        assert all(not ({"name", "query"} <= it.keys()) for it in event["entity"])
    assert events[0]["purposeOfEvent"][0]["coding"][0]["code"] == "TREAT"
    assert "purposeOfEvent" not in events[1]
