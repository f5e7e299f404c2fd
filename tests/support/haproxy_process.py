"""A real HAProxy with the repository's rules, in front of whatever servers a test has."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from server.machine.redis_server import free_loopback_port

RULES = Path(__file__).resolve().parents[2] / "deploy" / "haproxy" / "haproxy.cfg"
_START_TIMEOUT_S = 20.0
_CHANGE_TIMEOUT_S = 30.0
needs_haproxy = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")


@dataclass(frozen=True)
class RunningHaproxy:
    """Where it listens; servers are called api1 …, vllm1 …, in the order of their ports."""

    clients_url: str
    llm_url: str
    metrics_url: str
    admin_port: int

    def say(self, command: str) -> str:
        """One command of the runtime API, and its answer."""
        with socket.create_connection(("127.0.0.1", self.admin_port), timeout=10) as connection:
            connection.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def status_of(self, backend: str, server: str) -> str:
        """`UP`, `DOWN`, `DRAIN`, `MAINT` …, as HAProxy's statistics say."""
        header, *rows = self.say(f"show stat {backend} 4 -1").lstrip("# ").splitlines()
        names = header.split(",")
        found = [dict(zip(names, row.split(","), strict=False)) for row in rows if row]
        return next(row["status"] for row in found if row["svname"] == server)

    def wait_for(self, backend: str, server: str, status: str) -> None:
        """Until the server's status begins like that."""
        wait_until(lambda: self.status_of(backend, server).startswith(status))


def wait_until(happened: Callable[[], bool], timeout_s: float = _CHANGE_TIMEOUT_S) -> None:
    """Returns when it has happened; fails the test when it never does."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.05)


def check_configuration(*files: Path, environment: Mapping[str, str] = {}) -> str:
    """What `haproxy -c` complains about; empty when nothing."""
    command = ["haproxy", "-c", *(part for file in files for part in ("-f", str(file)))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    complaints = [line for line in done.stderr.splitlines() if "[NOTICE]" not in line]
    return "\n".join(complaints) or ("" if done.returncode == 0 else f"exit code {done.returncode}")


def servers_file(folder: Path, api_ports: Sequence[int], llm_ports: Sequence[int]) -> Path:
    """The second configuration file, for servers on this machine; looked at more often than elsewhere."""
    impatient = "    default-server inter 100ms fastinter 100ms"
    lines = ["backend api from api_rules", impatient]
    lines += [f"    server api{number} 127.0.0.1:{port}" for number, port in enumerate(api_ports, 1)]
    lines += ["backend llm from llm_rules", impatient]
    lines += [f"    server vllm{number} 127.0.0.1:{port}" for number, port in enumerate(llm_ports, 1)]
    path = folder / "servers.cfg"
    path.write_text("\n".join(lines) + "\n")
    return path


@contextmanager
def running_haproxy(folder: Path, servers: Path) -> Iterator[RunningHaproxy]:
    """The rules with a file of servers, until the block ends; `folder` gets the log. The servers may come later."""
    clients, llm, metrics, admin = (free_loopback_port() for _ in range(4))
    environment = {
        **os.environ,
        "API_BIND": f"127.0.0.1:{clients}",
        "LLM_BIND": f"127.0.0.1:{llm}",
        "METRICS_BIND": f"127.0.0.1:{metrics}",
        "ADMIN_BIND": f"ipv4@127.0.0.1:{admin}",
    }
    command = ["haproxy", "-db", "-f", str(RULES), "-f", str(servers)]
    log = folder / "haproxy.log"
    with log.open("wb") as sink, subprocess.Popen(command, env=environment, stdout=sink, stderr=sink) as process:
        try:
            urls = (f"http://127.0.0.1:{port}" for port in (clients, llm, metrics))
            haproxy = RunningHaproxy(*urls, admin)
            wait_until(lambda: _answers(haproxy.metrics_url, process, log), _START_TIMEOUT_S)
            yield haproxy
        finally:
            process.terminate()


def _answers(url: str, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return httpx.get(f"{url}/livez").status_code == 200
    except httpx.HTTPError:
        return False
