import dataclasses
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from server.api.parts import Parts
from server.app import build_readiness
from server.machine.component_states import CrashLoopFile, crash_loops
from server.machine.supervise import Change


@pytest.fixture
def file(tmp_path: Path) -> CrashLoopFile:
    return CrashLoopFile(tmp_path / "crash_loops.json")


def loop(file: CrashLoopFile, name: str = "vllm") -> None:
    for state in ("ready", "exited", "starting", "exited", "starting"):
        file(Change(name, state, "exit code 1, again in 2 s"))
    file(Change(name, "crash loop", "vllm keeps exiting; the end of its log /home/…"))


def test_a_component_in_a_loop_is_named_with_how_it_exits(file: CrashLoopFile) -> None:
    loop(file)
    assert crash_loops(file.path) == {"vllm": "exit code 1, again in 2 s"}


def test_one_exit_is_no_loop_and_readiness_ends_one(file: CrashLoopFile) -> None:
    file(Change("worker-1", "exited", "killed by SIGKILL, again in 0.5 s"))
    loop(file)
    file(Change("vllm", "ready"))
    assert crash_loops(file.path) == {}


@pytest.mark.parametrize("content", ["", "[]", "{", None])
def test_a_file_that_says_nothing_loops_nothing(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_text(content)
    assert crash_loops(path) == {}


async def test_a_loop_makes_the_server_not_ready_and_says_why(
    app: FastAPI, parts: Parts, client: httpx.AsyncClient, file: CrashLoopFile
) -> None:
    settings = parts.settings.model_copy(update={"crash_loop_file": file.path})
    readiness = app.state.readiness = build_readiness(dataclasses.replace(parts, settings=settings))
    await readiness.look()
    assert (await client.get("/readyz")).status_code == 200

    loop(file, "worker-1")
    await readiness.look()
    answer = await client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["crash_loops"] == {"worker-1": "exit code 1, again in 2 s"}
    assert set(answer.json()["checks"].values()) == {"ok"}
