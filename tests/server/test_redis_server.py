"""The Redis that `eyepiece up` starts: the real server, its password, its file, its memory policy."""

import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import redis

from server.redis_server import RedisLaunch, answers, find_server_binary, free_loopback_port, prepare_redis
from server.supervise import Change, Component, RestartPolicy, Supervisor


def launch_in(folder: Path) -> RedisLaunch:
    binary = find_server_binary()
    assert binary is not None
    return prepare_redis(binary, folder, max_memory_mb=64)


@contextmanager
def running(launch: RedisLaunch, log: Path) -> Iterator[Supervisor]:
    """The server under the real supervisor, answering."""

    def ignore(change: Change) -> None:
        return

    with Supervisor(ignore, RestartPolicy(first_delay_s=0.01)) as supervisor:
        supervisor.start(Component("redis", launch.command, dict(os.environ), log, lambda: answers(launch.url)))
        assert supervisor.wait_until_ready(["redis"], timeout_s=60)
        yield supervisor


@pytest.fixture
def launch(tmp_path: Path) -> RedisLaunch:
    return launch_in(tmp_path / "redis")


def test_it_answers_with_the_password_and_refuses_without(launch: RedisLaunch, tmp_path: Path) -> None:
    port = urlsplit(launch.url).port
    assert port is not None

    with running(launch, tmp_path / "log"), redis.Redis(port=port) as stranger:
        assert answers(launch.url)
        with pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_what_was_acknowledged_survives_a_kill(launch: RedisLaunch, tmp_path: Path) -> None:
    with running(launch, tmp_path / "log"), redis.Redis.from_url(launch.url) as client:
        client.set("job", "queued")
        os.kill(client.info("server")["process_id"], signal.SIGKILL)

    with running(launch, tmp_path / "log"), redis.Redis.from_url(launch.url) as client:
        assert client.get("job") == b"queued"


def test_only_keys_with_a_time_to_live_can_be_evicted(launch: RedisLaunch, tmp_path: Path) -> None:
    with running(launch, tmp_path / "log"), redis.Redis.from_url(launch.url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "volatile-lru"}
        client.set("job", b"j" * 1000)
        for number in range(100):
            client.set(f"cache:{number}", b"c" * 2**20, ex=3600)

        assert client.get("job") == b"j" * 1000
        assert client.dbsize() < 100


def test_it_listens_on_loopback_only(launch: RedisLaunch, tmp_path: Path) -> None:
    with running(launch, tmp_path / "log"), redis.Redis.from_url(launch.url) as client:
        server = psutil.Process(client.info("server")["process_id"])
        listening = {it.laddr.ip for it in server.net_connections() if it.status == psutil.CONN_LISTEN}

    assert listening == {"127.0.0.1"}


def test_the_password_is_in_no_argument_and_its_files_are_private(launch: RedisLaunch, tmp_path: Path) -> None:
    password = urlsplit(launch.url).password
    assert password

    assert password not in " ".join(launch.command)
    for name in ("password", "redis.conf"):
        assert stat.S_IMODE((tmp_path / "redis" / name).stat().st_mode) == 0o600


def test_the_password_stays_and_the_port_is_found_anew(tmp_path: Path) -> None:
    first, second = launch_in(tmp_path), launch_in(tmp_path)

    assert urlsplit(first.url).password == urlsplit(second.url).password
    assert f"port {urlsplit(second.url).port}\n" in (tmp_path / "redis.conf").read_text()


def test_a_folder_with_odd_characters_works(tmp_path: Path) -> None:
    folder = tmp_path / 'a "quoted" folder\\with µ'
    launch = launch_in(folder)

    with running(launch, tmp_path / "log"), redis.Redis.from_url(launch.url) as client:
        client.set("key", "value")

    assert (folder / "appendonlydir").is_dir()


def test_a_server_on_the_path_comes_before_the_bundled_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "redis-server"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    bundled = find_server_binary()
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_server_binary() == own
    assert bundled is not None
    assert bundled != own


def test_nothing_answers_where_nothing_listens() -> None:
    assert not answers(f"redis://127.0.0.1:{free_loopback_port()}/0")
