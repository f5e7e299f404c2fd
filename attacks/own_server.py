"""The server under attack, started here: `eyepiece up` with its data in a temporary folder, and keys of tenants."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]

from attacks.target import Budget, Target
from server.machine.redis_server import free_loopback_port
from server.machine.supervise import die_with_parent

ROOT = Path(__file__).resolve().parents[1]
TENANTS = ("attacker", "other")
_STOP_WITHIN_S = 120.0
# Faults heal within seconds, in the same order as with the settings of a cluster.
_SETTINGS = {"EYEPIECE_JOB_SWEEP_S": "1", "EYEPIECE_RECONCILE_EVERY_S": "5", "OMP_NUM_THREADS": "1"}
_VLLM = "vllm.entrypoints.openai.api_server"
_RUNNING = "vllm:num_requests_running"


@dataclass
class OwnServer:
    """Where everything is, and every process of it."""

    target: Target
    data_dir: Path
    up: psutil.Process
    stand_in: "StandIn | None" = None
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def attacker(self) -> str:
        """The key of the tenant that attacks."""
        return self.keys["attacker"]

    @property
    def other(self) -> str:
        """The key of the tenant that must not notice."""
        return self.keys["other"]

    def process(self, component: str) -> psutil.Process:
        """Of `eyepiece api`, or `worker`."""
        for child in self.up.children():
            with suppress(psutil.NoSuchProcess):
                if child.cmdline()[1:4] == ["-m", "server", component]:
                    return child
        raise RuntimeError(f"the {component} does not run")

    def environment_of_api(self) -> dict[str, str]:
        """What `up` told it: where Redis and vLLM are."""
        return dict(self.process("api").environ())

    def llm_process(self) -> psutil.Process:
        """vLLM, or what stands in for it."""
        if self.stand_in is not None:
            return psutil.Process(self.stand_in.process.pid)
        return next(it for it in self.up.children() if _VLLM in it.cmdline())

    def running_in_llm(self) -> int:
        """Requests that vLLM works on now."""
        text = httpx.get(f"{self.environment_of_api()['EYEPIECE_LLM_URL']}/metrics", trust_env=False).text
        rows = [line for line in text.splitlines() if line.startswith((f"{_RUNNING}{{", f"{_RUNNING} "))]
        return int(sum(float(row.rsplit(" ", 1)[1]) for row in rows))

    def make_keys(self) -> None:
        """One for each tenant, as an operator makes them."""
        for tenant in TENANTS:
            told = self.command("keys", "create", "--tenant", tenant, "--json")
            self.keys[tenant] = str(json.loads(told.stdout)["key"])

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`eyepiece …` on this server's data."""
        return subprocess.run(
            [sys.executable, "-m", "server", *arguments, "--data-dir", str(self.data_dir)],
            cwd=self.data_dir.parent,
            env=_environment({}),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def slide_folder(self, tenant: str, slide_id: str) -> Path:
        """Where the store keeps a slide."""
        return self.data_dir / "store" / "tenants" / tenant / "slides" / slide_id


class StandIn:
    """The process that stands in for vLLM; it can be started again at the same port."""

    def __init__(self, log: Path, pauses: float) -> None:
        self.port, self._log, self._pauses = free_loopback_port(), log, pauses
        self.start()

    def start(self) -> None:
        """In place of one that is dead."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "attacks.stand_in_vllm", str(self.port), str(self._pauses)],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )

    def stop(self) -> None:
        """For good."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()


@contextmanager
def own_server(
    folder: Path, budget: Budget, *, real_vllm: bool, pauses: float = 1.0, require_key: bool = False
) -> Iterator[OwnServer]:
    """Everything up and ready below `folder`; no key has been made yet. Stopped at the end. `pauses` is the share of
    its usual pauses that what stands in for vLLM makes.

    Raises:
        RuntimeError: it did not get ready.
    """
    with ExitStack() as stack:
        stand_in = None if real_vllm else StandIn(folder / "stand_in.log", pauses)
        settings = {"EYEPIECE_REQUIRE_KEY": str(require_key)}
        if stand_in is not None:
            stack.callback(stand_in.stop)
            settings["EYEPIECE_LLM_URL"] = f"http://127.0.0.1:{stand_in.port}"
        target = Target("127.0.0.1", free_loopback_port(), budget)
        process = stack.enter_context(_up(folder, target.port, settings))
        yield OwnServer(target, folder / "data", psutil.Process(process.pid), stand_in)


@contextmanager
def _up(folder: Path, port: int, settings: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "server", "up", "--port", str(port), "--data-dir", str(folder / "data")]
    with (folder / "up.log").open("wb") as output, open(reading, "rb") as notifications:
        process = subprocess.Popen(
            [*command, "--notify-fd", str(writing)],
            cwd=folder,
            pass_fds=(writing,),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(settings),
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
        os.close(writing)
        try:
            if notifications.read() != b"ready\n":
                raise RuntimeError(f"the server did not get ready:\n{(folder / 'up.log').read_text()}")
            yield process
        finally:
            process.terminate()
            process.wait(_STOP_WITHIN_S)


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Ours, without what an operator may have set for another Eyepiece."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("EYEPIECE_") or "VLLM_PYTHON" in name
    }
    return inherited | _SETTINGS | dict(settings) | {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(ROOT)}
