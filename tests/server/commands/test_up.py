"""What `eyepiece up` is going to start: each part knows the others, and secrets are in no argument."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.commands.up import Plan, http_probe
from server.redis_server import free_loopback_port
from server.settings import Settings


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    for name in ("EYEPIECE_REDIS_URL", "EYEPIECE_LLM_URL", "EYEPIECE_LLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return Plan(Settings(data_dir=tmp_path / "data", port=free_loopback_port()), tmp_path / "logs")


@pytest.fixture
def silent_server() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_every_part_knows_where_redis_and_vllm_are(plan: Plan) -> None:
    redis, (vllm,) = plan.redis(), plan.llm()
    workers, api = plan.encoder_workers(2), plan.api()

    for component in (*workers, api):
        assert component.environment["EYEPIECE_REDIS_URL"] == plan.environment["EYEPIECE_REDIS_URL"]
        assert component.environment["EYEPIECE_LLM_URL"].endswith(vllm.command[-1])
        assert component.environment["EYEPIECE_LLM_API_KEY"] == vllm.environment["EYEPIECE_LLM_API_KEY"]
        assert component.environment["PYTHONSAFEPATH"] == "1"
    assert [component.name for component in (redis, vllm, *workers, api)] == [
        "redis",
        "vllm",
        "worker-1",
        "worker-2",
        "api",
    ]
    assert len({worker.environment["EYEPIECE_WORKER_PORT"] for worker in workers}) == 2


def test_no_secret_is_an_argument(plan: Plan) -> None:
    components = [plan.redis(), *plan.llm(), *plan.encoder_workers(1), plan.api()]
    arguments = " ".join(part for component in components for part in component.command)

    assert plan.environment["EYEPIECE_LLM_API_KEY"] not in arguments
    assert plan.environment["EYEPIECE_REDIS_URL"] not in arguments


def test_redis_gets_nothing_of_the_environment_but_what_it_needs(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    assert set(plan.redis().environment) <= {"PATH", "LANG", "TZ"}


def test_a_vllm_that_is_named_is_not_started(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", llm_url="http://vllm:8101")

    assert Plan(settings, tmp_path / "logs").llm() == []


def test_a_probe_is_not_held_up_by_a_server_that_does_not_answer(silent_server: int) -> None:
    assert not http_probe("127.0.0.1", silent_server, "/readyz")()
    assert not http_probe("127.0.0.1", free_loopback_port(), "/readyz")()
