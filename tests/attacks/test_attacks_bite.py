"""A broken server is reported as broken, and one that holds as held: the attacks' own logic, without Eyepiece."""

import asyncio
import json
from pathlib import Path

import h5py
import httpx
import numpy as np
import openslide
import psutil
import pytest
from open_door import open_door

from attacks import crossings, forms, half_requests, index_files, keyless
from attacks.__main__ import one
from attacks.own_server import OwnServer
from attacks.sample_slides import features_file, jpeg
from attacks.stand_in_vllm import StandInVllm
from attacks.target import Budget, BudgetSpent, FormFile, Target
from attacks.watched_process import close_wait
from server.asking.answer_scores import read_scores

SLIDE, CONVERSATION = "a" * 64, "conv_" + "b" * 22


@pytest.mark.parametrize("host", ["192.0.2.1", "0.0.0.0", "2001:db8::1"])
def test_nothing_but_loopback_is_attacked(host: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        Target(host, 8000, Budget())


async def test_a_run_ends_when_its_budget_is_spent() -> None:
    async with open_door(lambda head: (200, b"")) as (_, server):
        server.target.budget.connections = 2
        await server.target.get("/livez")
        await server.target.get("/livez")

        with pytest.raises(BudgetSpent):
            await server.target.get("/livez")


@pytest.mark.parametrize(("status", "held"), [(200, False), (401, True)])
async def test_a_server_that_lets_proxies_in_is_broken(status: int, held: bool) -> None:
    def answer(head: str) -> tuple[int, bytes]:
        return (status, b"") if "orwarded" in head or "ia: " in head.lower() else (401, b"")

    async with open_door(answer) as (_, server):
        found = {it.attack: it.held for it in await keyless.before_there_are_keys(server.target)}

    assert found["keyless behind a proxy, no keys yet"] == held
    assert not found["control: keyless on loopback, no keys yet"]


@pytest.mark.parametrize("leak", ["status", "body", "nothing"])
async def test_a_reply_that_depends_on_whether_an_id_exists_is_broken(leak: str) -> None:
    def answer(head: str) -> tuple[int, bytes]:
        exists = SLIDE in head or CONVERSATION in head
        status = 403 if exists and leak == "status" else 404
        return status, b"not yours" if exists and leak == "body" else head.split(" ")[1].encode()

    async with open_door(answer) as (_, server):
        found = await crossings._crossed(server, {"features": SLIDE}, CONVERSATION)

    assert found.held == (leak == "nothing"), found.seen


@pytest.mark.parametrize(("told", "held"), [((413, b""), True), (None, False), ((500, b""), False)])
async def test_a_server_that_takes_endless_forms_is_broken(
    told: tuple[int, bytes] | None, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "_ENDLESS_BYTES", 2**24)
    monkeypatch.setattr(forms, "_TAKEN_AT_MOST_BYTES", 3 * 2**22)

    async with open_door(lambda head: told) as (_, server):
        found = await asyncio.wait_for(forms._taken(server, forms.Endless("head", b"", b"a" * 65536)), 5)

    assert found.held == held, found.seen


async def test_connections_that_the_server_keeps_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half_requests, "_CLOSED_WITHIN_S", 0.1)

    async with open_door(lambda head: (200, b"")) as (_, server), half_requests._open(server, 3, b"GET /") as wires:
        assert await half_requests._left_open(wires) == 3


async def test_a_socket_whose_client_is_gone_is_counted_until_it_is_closed() -> None:
    async with open_door(lambda head: (200, b""), keeps=True) as (door, server):
        await server.target.get("/livez")
        await asyncio.wait_for(door.keeping.wait(), 5)
        for _ in range(500):  # the kernel's own steps
            if counted := close_wait(psutil.Process()):
                break
            await asyncio.sleep(0.01)

    assert counted >= 1


async def test_an_attack_that_cannot_be_carried_out_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OwnServer, "process", lambda self, component: psutil.Process())

    async def fails(server: OwnServer, share: float):  # type: ignore[no-untyped-def]
        raise RuntimeError("no slide")
        yield

    async with open_door(lambda head: (200, b"")) as (_, server):
        found = await one("name", fails, server, 1.0)

    assert [it.held for it in found] == [False, True]
    assert "no slide" in found[0].seen


async def test_the_stand_in_counts_what_it_works_on_and_stops_when_its_client_is_gone() -> None:
    stand_in = StandInVllm()
    async with await asyncio.start_server(stand_in.serve, "127.0.0.1", 0) as listening:
        target = Target("127.0.0.1", listening.sockets[0].getsockname()[1], Budget())
        body = json.dumps({"stream": True, "messages": [{"role": "user", "content": "a"}]}).encode()
        async with target.connection() as wire:
            await wire.write(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            assert (await wire.head())[0] == 200
            counted = (await target.get("/metrics")).body
            wire.hang_up()
            await asyncio.wait_for(stand_in.idle.wait(), 5)
        afterwards = (await target.get("/metrics")).body

    assert counted == b"vllm:num_requests_running 1\n"
    assert afterwards == b"vllm:num_requests_running 0\n"


async def test_the_stand_in_scores_each_byte() -> None:
    async with await asyncio.start_server(StandInVllm().serve, "127.0.0.1", 0) as listening:
        address = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1/chat/completions"
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "Ja"}]
        async with httpx.AsyncClient() as client:
            answered = await client.post(address, json={"messages": messages})

    scores = read_scores(answered.content, 0)
    assert scores.ids[-2:] == tuple(b"Ja")
    assert scores.of_last(2) == -2.0


def _opened(folder: Path, files: list[FormFile]) -> tuple[int, int]:
    for _, name, content in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with openslide.OpenSlide(folder / files[0][1]) as slide:
        return slide.dimensions


@pytest.mark.parametrize("kind", ["VMS", "VMU", "MIRAX"])
def test_index_files_lead_out_of_their_folder_where_nothing_holds_them(tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "elsewhere" / "secret"
    secret.parent.mkdir()
    secret.write_bytes(index_files.ngr(256) if kind == "VMU" else jpeg())
    name = index_files.from_anywhere(secret)
    files = {
        "VMS": [("file", "a.vms", index_files.vms(name))],
        "VMU": [("file", "a.vmu", index_files.vmu(name))],
        "MIRAX": index_files.mirax(name, secret.stat().st_size),
    }[kind]

    assert _opened(tmp_path / "slide", files) == (256, 256)


def test_whole_slides_of_several_files_open(tmp_path: Path) -> None:
    assert _opened(tmp_path / "vms", index_files.whole_vms()) == (256, 256)
    assert _opened(tmp_path / "mirax", index_files.whole_mirax()) == (256, 256)


@pytest.mark.parametrize(
    "build", [index_files.external_link, index_files.virtual_dataset, index_files.external_storage]
)
def test_features_lead_to_another_file_where_nothing_holds_them(tmp_path: Path, build) -> None:  # type: ignore[no-untyped-def]
    theirs = tmp_path / "theirs.h5"
    theirs.write_bytes(features_file(16))

    (tmp_path / "ours.h5").write_bytes(build(theirs))

    with h5py.File(tmp_path / "ours.h5") as ours, h5py.File(theirs) as other:
        found = np.array(ours["features"])
        wanted = np.array(other["features"])

    if build is index_files.external_storage:
        assert found.tobytes()[:8] == theirs.read_bytes()[:8]
    else:
        np.testing.assert_array_equal(found, wanted)
