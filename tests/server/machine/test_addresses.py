"""Addresses that this machine listens on and reaches itself by, with real sockets."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
import uvicorn
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from server.commands import checks
from server.commands.api_client import ApiClient
from server.commands.options import default_url
from server.commands.up import Plan, http_probe
from server.encoding.worker_health import WorkerHealth
from server.machine.addresses import bind, local_host, url_of
from server.machine.redis_server import free_loopback_port
from server.settings import Settings
from server.telemetry.metrics import WorkerMetrics

LOOPBACK = ("127.0.0.1", "127.0.0.2", "::1", "localhost")
EVERYWHERE = ("0.0.0.0", "::", "")


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
HOSTS = [pytest.param(host, marks=[needs_ipv6] if ":" in host else []) for host in (*LOOPBACK, *EVERYWHERE)]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in [name for name in os.environ if name.startswith("EYEPIECE_")]:
        monkeypatch.delenv(name)
    return Settings(data_dir=tmp_path / "data", port=free_loopback_port())


def child_settings(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings as the process reads them that gets this environment."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings()


@contextlib.contextmanager
def listening(host: str) -> Iterator[int]:
    """uvicorn as the API has it, told nothing but the host; the port."""
    server = uvicorn.Server(uvicorn.Config(Starlette(), host=host, port=free_loopback_port(), log_config=None))
    is_up = threading.Event()
    startup = server.startup

    async def say_so(sockets: list[socket.socket] | None = None) -> None:
        await startup(sockets)
        is_up.set()

    server.startup = say_so  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert is_up.wait(60)
    try:
        yield server.config.port
    finally:
        server.should_exit = True
        thread.join()


@pytest.mark.parametrize("host", HOSTS)
def test_a_server_is_reached_and_named_where_it_listens(host: str) -> None:
    with listening(host) as port:
        connection = HTTPConnection(local_host(host), port, timeout=60)
        connection.request("GET", "/")
        assert connection.getresponse().status == 404
        connection.close()
        assert httpx.get(url_of(host, port), timeout=60, trust_env=False).status_code == 404
        assert checks.check_port(host, port).state == "fail"


@pytest.mark.parametrize("host", HOSTS)
def test_a_worker_is_probed_where_it_listens(
    settings: Settings, tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (worker,) = Plan(settings.model_copy(update={"worker_host": host}), tmp_path).encoder_workers(1)
    told = child_settings({**worker.environment, "EYEPIECE_WORKER_HOST": host}, monkeypatch)
    health = WorkerHealth(WorkerMetrics(CollectorRegistry()), told.worker_host, told.worker_port)
    health.start()

    assert not worker.is_ready()
    health.ready = True
    assert worker.is_ready()


@pytest.mark.parametrize("host", ["127.0.0.2", pytest.param("::1", marks=needs_ipv6), "0.0.0.0", "gpu-7"])
def test_an_address_for_the_api_is_none_for_the_keyless_pages_of_the_worker(
    settings: Settings, tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (worker,) = Plan(settings.model_copy(update={"host": host}), tmp_path).encoder_workers(1)
    told = child_settings(dict(worker.environment), monkeypatch)
    assert told.host == host
    health = WorkerHealth(WorkerMetrics(CollectorRegistry()), told.worker_host, told.worker_port)
    health.start()
    health.ready = True

    assert worker.is_ready()
    assert http_probe("127.0.0.1", health.port, "/readyz")()
    assert not http_probe("127.0.0.2", health.port, "/readyz")()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("0:0:0:0:0:0:0:0", "http://[::1]:8000"),
        ("::1", "http://[::1]:8000"),
        ("[::1]", "http://[::1]:8000"),
        ("fd00::2", "http://[fd00::2]:8000"),
        ("fe80::1%eth0", "http://[fe80::1%25eth0]:8000"),
        ("gpu-7", "http://gpu-7:8000"),
    ],
)
def test_clients_go_where_the_settings_have_the_server_listen(
    host: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EYEPIECE_HOST", host)
    monkeypatch.delenv("EYEPIECE_PORT", raising=False)

    assert url_of(Settings(host=host).host, 8000) == url
    assert default_url() == url
    with ApiClient(default_url()) as client:
        assert client.base_url == url


def test_without_settings_clients_go_to_the_default_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EYEPIECE_HOST", raising=False)
    monkeypatch.setenv("EYEPIECE_PORT", "9000")

    assert default_url() == "http://127.0.0.1:9000"


def test_all_sockets_of_a_name_share_a_port_that_was_free() -> None:
    listeners = bind("localhost", 0)
    ports = {listener.getsockname()[1] for listener in listeners}
    for listener in listeners:
        listener.close()

    assert len(ports) == 1
    assert 0 not in ports


@pytest.mark.parametrize("port", ["0", "65536", "-1"])
def test_a_port_that_cannot_be_one_is_a_wrong_setting(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EYEPIECE_PORT", port)

    with pytest.raises(ValueError, match="port"):
        Settings()
