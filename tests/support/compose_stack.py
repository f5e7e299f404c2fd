"""docker-compose.yml with the images of `make images`, two replicas of API, worker and vLLM, behind its HAProxy.

As a user starts it, under another project name and with passwords, ports and volumes of its own, which are gone
afterwards. Grafana is left out where its image cannot be had. Replicas are killed and stopped by the tests.
"""

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from haproxy_process import wait_until

from server.machine.redis_server import free_loopback_port

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy"))
from container_engine import Engine, choose_engine  # noqa: E402 - of deploy/, which is no package

PROJECT = "eyepiece-stack-test"
SCALED = ("api", "worker", "vllm")
COUNT = 2
# Two vLLMs that start at once on two cores.
START_TIMEOUT_S = 1200.0
_SECRETS = ("EYEPIECE_REDIS_PASSWORD", "EYEPIECE_LLM_API_KEY", "EYEPIECE_GRAFANA_PASSWORD")


@dataclass(frozen=True)
class ComposeStack:
    """Everything that runs; `variables` are those of Compose, passwords among them."""

    engine: Engine
    scale_file: Path
    log: Path
    variables: Mapping[str, str]
    keys: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """HAProxy's, for clients."""
        return f"http://127.0.0.1:{self.variables['EYEPIECE_PORT']}"

    @property
    def key(self) -> str:
        """Of the tenant `default`."""
        return self.keys[0]

    def client(self) -> httpx.Client:
        """A client of the API, through HAProxy."""
        return httpx.Client(base_url=self.url, timeout=120.0, headers={"Authorization": f"Bearer {self.key}"})

    def compose(self, *arguments: str) -> str:
        """What a command of Compose prints; its complaints go to the log."""
        command = [*self.engine.compose, "-f", str(self.scale_file), "-p", PROJECT, *arguments]
        with self.log.open("ab") as log:
            log.write(f"\n$ {' '.join(arguments)}\n".encode())
            log.flush()
            ended = subprocess.run(
                command,
                cwd=ROOT,
                env={**os.environ, **self.engine.environment, **self.variables},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                check=False,
            )
            log.write(ended.stdout.encode())
        assert ended.returncode == 0, self.log.read_text()[-4000:]
        return ended.stdout

    def containers(self, service: str) -> list[str]:
        """Names of a service's containers, in order, whether they run or not."""
        labels = {"com.docker.compose.project": PROJECT, "com.docker.compose.service": service}
        filters = [part for name, value in labels.items() for part in ("--filter", f"label={name}={value}")]
        return sorted(self.engine.run("ps", "--all", *filters, "--format", "{{.Names}}").split())

    def is_healthy(self, container: str) -> bool:
        """Whether its own health check says so, now; fails the test when it has ended instead."""
        state = json.loads(self.engine.run("inspect", "--format", "{{json .State}}", container))
        assert state["Status"] not in ("exited", "dead"), self.end_of_log(container)
        if self.engine.is_podman:
            done = subprocess.run(
                [self.engine.name, "healthcheck", "run", container],
                env={**os.environ, **self.engine.environment},
                capture_output=True,
                check=False,
            )
            return done.returncode == 0
        return bool(state["Health"]["Status"] == "healthy")

    def end_of_log(self, container: str, lines: int = 40) -> str:
        """The last lines that it wrote."""
        return subprocess.run(
            [self.engine.name, "logs", "--tail", str(lines), container],
            env={**os.environ, **self.engine.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        ).stdout

    def ends_of_logs(self, *services: str) -> str:
        """The last lines of all containers of these services."""
        names = [name for service in services for name in self.containers(service)]
        return "\n".join(f"--- {name}\n{self.end_of_log(name, lines=200)}" for name in names)

    def kill(self, container: str) -> None:
        """As when its machine is gone: without a word to anybody."""
        # Podman 4.3 waits a few seconds for the end, and calls it an error when a large process takes longer to die.
        self.engine.run("kill", "--signal", "KILL", container, check=False)
        wait_until(lambda: self.engine.run("inspect", "--format", "{{.State.Running}}", container) == "false")

    def stop(self, container: str) -> int:
        """As a rolling update does: SIGTERM, and time to leave. The exit code."""
        self.engine.run("stop", "--time", "60", container)
        return int(self.engine.run("inspect", "--format", "{{.State.ExitCode}}", container))

    def start(self, container: str) -> None:
        """Again, until it is healthy."""
        self.engine.run("start", container)
        wait_until(lambda: self.is_healthy(container), START_TIMEOUT_S)

    def start_all(self) -> None:
        """Models, a key, then everything; returns when all are healthy and HAProxy has an API."""
        self.compose("up", "--detach", "models")
        (models,) = self.containers("models")
        assert self.engine.run("wait", models).splitlines()[-1] == "0", self.end_of_log(models)
        made = self.compose("run", "--rm", "--no-deps", "-T", "api", "keys", "create", "--tenant", "default")
        self.keys.append(made.split()[-1])
        lasting = ["redis", "haproxy", *SCALED, "prometheus", *([] if self.engine.makes_bases else ["grafana"])]
        self.compose("up", "--detach", *lasting)
        started = time.monotonic()
        for service in lasting:
            names = self.containers(service)
            assert len(names) == (COUNT if service in SCALED else 1), names
            for name in names:
                wait_until(lambda name=name: self.is_healthy(name), START_TIMEOUT_S)  # type: ignore[misc]
                user = self.engine.run("exec", name, "id", "-u")
                print(f"  {name} is healthy, as user {user}, after {time.monotonic() - started:.0f} s", flush=True)
        wait_until(lambda: httpx.get(f"{self.url}/readyz").status_code == 200, START_TIMEOUT_S)


@contextmanager
def running_stack(folder: Path) -> Iterator[ComposeStack]:
    """The whole stack until the block ends; then its containers and volumes are removed."""
    scale_file = folder / "scale.yml"
    scale_file.write_text(json.dumps({"services": {name: {"scale": COUNT} for name in SCALED}}))
    variables = {
        **{name: secrets.token_hex(32) for name in _SECRETS},
        "EYEPIECE_PORT": str(free_loopback_port()),
        "EYEPIECE_GRAFANA_PORT": str(free_loopback_port()),
    }
    stack = ComposeStack(choose_engine(os.environ), scale_file, folder / "compose.log", variables)
    stack.compose("down", "--volumes")
    try:
        stack.start_all()
        yield stack
    finally:
        stack.compose("down", "--volumes")
