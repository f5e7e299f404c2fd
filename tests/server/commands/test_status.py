"""`eyepiece status` beside a real `eyepiece up`, whose vLLM and worker are small stand-ins, and beside none."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from server.commands.data_folder import locked_data_folder
from server.commands.outcome import CommandError, ExitCode
from server.commands.status import status_here, status_of
from server.machine.addresses import bind
from server.machine.redis_server import free_loopback_port
from server.machine.supervise import die_with_parent
from server.machine.up_state import STATE_FILE, UpStateFile, is_current, process_start, read_state
from server.settings import Settings

TESTS = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0


def ipv6_or_another_loopback() -> str:
    try:
        for listener in bind("::1", 0):
            listener.close()
    except OSError:
        return "localhost"
    return "::1"


@dataclass(frozen=True)
class Up:
    """A running `eyepiece up`."""

    process: subprocess.Popen[bytes]
    data_dir: Path
    host: str
    ports: dict[str, int]

    def settings(self) -> Settings:
        """Those of an operator who has the data folder and nothing else."""
        return Settings(data_dir=self.data_dir)

    @property
    def url(self) -> str:
        """Where the API is."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.ports['api']}"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder, host = tmp_path_factory.mktemp("status"), ipv6_or_another_loopback()
    ports = {name: free_loopback_port() for name in ("api", "redis", "vllm", "worker-1")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EYEPIECE_")} | {
        "PYTHONPATH": f"{TESTS / 'support'}:{TESTS}",
        "PYTHONSAFEPATH": "1",
        "EYEPIECE_REDIS_PORT": str(ports["redis"]),
        "EYEPIECE_LLM_PORT": str(ports["vllm"]),
        "EYEPIECE_WORKER_PORT": str(ports["worker-1"]),
    }
    systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    systemd.bind(str(folder / "notify"))
    systemd.settimeout(PATIENCE_S)
    environment["NOTIFY_SOCKET"] = str(folder / "notify")
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "up_with_stand_ins", "up", "--host", host, "--port", str(ports["api"])]
    with (folder / "up.log").open("wb") as output, open(reading, "rb") as notifications:
        process = subprocess.Popen(
            [*command, "--data-dir", str(folder / "data"), "--notify-fd", str(writing)],
            pass_fds=(writing,),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
        os.close(writing)
        try:
            assert notifications.read() == b"ready\n", (folder / "up.log").read_text()
            assert systemd.recv(100) == b"READY=1"
            yield Up(process, folder / "data", host, ports)
        finally:
            process.terminate()
            process.wait(PATIENCE_S)
    assert systemd.recv(100) == b"STOPPING=1"
    systemd.close()
    assert not (folder / "data" / STATE_FILE).exists(), "the note goes with the server"
    shown = (folder / "up.log").read_text()
    assert f"Eyepiece is ready at http://{f'[{host}]' if ':' in host else host}:{ports['api']};" in shown


def report_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_it_shows_what_runs_and_where(up: Up, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_here(up.settings(), as_json=True) == ExitCode.OK

    report = report_of(capsys)
    processes = {it["name"]: it for it in report["processes"]}
    assert report["ok"]
    assert report["url"] == up.url
    assert report["pid"] == up.process.pid
    assert set(processes) == {"redis", "vllm", "worker-1", "api"}
    for name, it in processes.items():
        assert (it["state"], it["restarts"]) == ("ready", 0)
        assert it["address"].endswith(f":{up.ports[name]}")
        assert psutil.Process(it["pid"]).ppid() == up.process.pid
    assert report["readiness"]["status"] == "ready"
    assert {name: it["queued"] for name, it in report["queue"].items()} == {"urgent": 0, "routine": 0}
    assert report["models"] == {"served": ["demo"], "installed": ["demo"]}
    assert report["disk"]["free_bytes"] > 0
    assert report["disk"]["used_bytes"]["models"] > 10**7


def test_it_says_where_secrets_lie_and_not_what_they_are(up: Up, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_here(up.settings(), as_json=False) == ExitCode.OK

    shown, note = capsys.readouterr().out, up.data_dir / STATE_FILE
    state = read_state(up.data_dir)
    assert state is not None
    assert set(state["secret_files"]) == {"redis", "vllm"}
    for path in map(Path, state["secret_files"].values()):
        assert str(path) in shown
        assert path.is_relative_to(up.data_dir.resolve())
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_text() not in shown + note.read_text()
    assert stat.S_IMODE(note.stat().st_mode) == 0o600


def test_a_server_elsewhere_shows_what_its_api_does(up: Up, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(up.url + "/", "", as_json=True) == ExitCode.OK
    report = report_of(capsys)
    assert report["queue"]["urgent"] == {"queued": 0, "active": 0, "oldest_queued_s": 0.0}
    assert report["readiness"]["status"] == "ready"
    assert report["models"]["served"] == ["demo"]
    assert report["disk"]["free_bytes"] > 0

    assert status_of(up.url, "", as_json=False) == ExitCode.OK
    assert f"The API at {up.url} answers" in capsys.readouterr().out


def test_a_process_that_is_away_makes_all_not_well(up: Up, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_here(up.settings(), as_json=True) == ExitCode.OK
    worker = next(it for it in report_of(capsys)["processes"] if it["name"] == "worker-1")
    os.kill(worker["pid"], signal.SIGKILL)

    seen: list[tuple[ExitCode, dict[str, Any], dict[str, Any]]] = []
    deadline = time.monotonic() + PATIENCE_S
    while not seen or seen[-1][1]["restarts"] == 0 or seen[-1][1]["state"] != "ready":
        assert time.monotonic() < deadline
        code = status_here(up.settings(), as_json=True)
        report = report_of(capsys)
        seen.append((code, next(it for it in report["processes"] if it["name"] == "worker-1"), report))

    away = [(code, report) for code, it, report in seen if it["state"] != "ready"]
    assert away
    assert all(code == ExitCode.FAILED and "worker-1 is" in " ".join(report["problems"]) for code, report in away)
    assert (seen[-1][0], seen[-1][1]["restarts"]) == (ExitCode.OK, 1)


def test_where_nothing_runs_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_here(Settings(data_dir=tmp_path / "new"), as_json=False) == ExitCode.UNREACHABLE
    assert f"No `eyepiece up` runs on {tmp_path / 'new'}." in capsys.readouterr().out
    assert not (tmp_path / "new").exists()

    assert status_of(f"http://127.0.0.1:{free_loopback_port()}", "", as_json=False) == ExitCode.UNREACHABLE
    assert "Nothing answers at" in capsys.readouterr().out


@pytest.mark.parametrize("url", ["eyepiece", "ftp://127.0.0.1", "http://[::1"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(CommandError, match="URL is not valid") as refused:
        status_of(url, "", as_json=False)

    assert refused.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize("start", ["another start", None])
def test_a_note_that_a_killed_process_left_is_none_of_a_running_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], start: str | None
) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    pid = os.getpid() if start else int(ended.stdout)
    UpStateFile(tmp_path, {"url": "http://127.0.0.1:1", "model": "demo", "logs": "logs"}).write(
        [], {}, state="running", secrets={}
    )
    note = json.loads((tmp_path / STATE_FILE).read_text())
    assert is_current(note)
    (tmp_path / STATE_FILE).write_text(json.dumps(note | {"pid": pid, "process_start": start or "1"}))

    assert status_here(Settings(data_dir=tmp_path), as_json=False) == ExitCode.UNREACHABLE

    assert f"The last one (process {pid}, of " in capsys.readouterr().out


@pytest.mark.parametrize("note", [None, "", "{", "[]", '{"format": 99}', '{"format": 1, "pid": 1}'])
def test_a_folder_that_is_taken_without_a_note_is_not_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], note: str | None
) -> None:
    if note is not None:
        (tmp_path / STATE_FILE).write_text(note)
    with locked_data_folder(tmp_path):
        assert status_here(Settings(data_dir=tmp_path), as_json=False) == ExitCode.FAILED

    assert f"process {os.getpid()} has taken" in capsys.readouterr().out


def test_a_process_is_known_by_its_start() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    try:
        assert process_start(child.pid) is not None
        assert process_start(child.pid) == process_start(child.pid)
    finally:
        child.kill()
    while process_start(child.pid) is not None:  # dead, and not reaped yet
        pass
    child.wait()
    assert process_start(child.pid) is None


def test_a_full_disk_does_not_end_what_runs(tmp_path: Path) -> None:
    gone = tmp_path / "gone"

    with UpStateFile(gone, {}) as note:
        note.write([], {}, state="running", secrets={})

    assert not gone.exists()
