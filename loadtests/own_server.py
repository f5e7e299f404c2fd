"""A server to load, started here: the components of `eyepiece up`, with vLLM's address and key in our hands."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from model_store.installed import InstalledModel
from model_store.packaged_models import open_or_install
from server.commands.options import settings_from
from server.commands.up import Plan, http_probe
from server.machine.redis_server import free_loopback_port
from server.machine.supervise import Change, Component, Supervisor

START_TIMEOUT_S = 900.0
TENANT = "default"
# More questions at once than any of our load tests asks, so that none is refused.
_LIMITS = {"EYEPIECE_MAX_CONCURRENT_QUESTIONS": "256"}


@dataclass(frozen=True)
class OwnServer:
    """Where everything is. `llm_key` opens the vLLM at `llm_url`; `redis_url` holds Redis' password."""

    api_url: str
    llm_url: str
    llm_key: str
    redis_url: str
    data_dir: Path
    model: InstalledModel

    def process(self, command: str) -> psutil.Process:
        """The process of `eyepiece api`, or `worker`."""
        children = psutil.Process().children(recursive=True)
        return next(it for it in children if it.cmdline()[1:4] == ["-m", "server", command])

    def cpu_s(self, command: str) -> float:
        """CPU seconds that it has used, in user space and in the kernel."""
        return cpu_s_of(self.process(command))

    def vllm_api_server(self) -> psutil.Process:
        """The process of vLLM that speaks HTTP: its engine is a child of it."""
        children = psutil.Process().children(recursive=True)
        return next(it for it in children if "vllm.entrypoints.openai.api_server" in it.cmdline())


def cpu_s_of(process: psutil.Process) -> float:
    """CPU seconds that a process has used, in user space and in the kernel, without its children's."""
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def own_server(
    data_dir: Path, model: str, *, llm_url: str | None = None, only_api: bool = False
) -> Iterator[OwnServer]:
    """Redis, vLLM, one worker, one API with the installed model, ready; stopped at the end.

    `llm_url` names something that stands in for vLLM. With `only_api` there is neither vLLM nor worker: the API is
    never ready, takes uploads all the same, and nothing is done about them.
    """
    os.environ.update(_LIMITS)
    if only_api:  # nothing listens there
        llm_url = f"http://127.0.0.1:{free_loopback_port()}"
    if llm_url is not None:
        os.environ["EYEPIECE_LLM_URL"] = llm_url
    settings = settings_from(data_dir=data_dir, port=free_loopback_port(), model=model)
    plan = Plan(settings, logs=data_dir.resolve() / "logs")
    plan.logs.mkdir(parents=True, exist_ok=True)
    installed = open_or_install(settings.installed_models_dir, model)
    with Supervisor(_report) as supervisor:
        for number in (signal.SIGINT, signal.SIGTERM):  # they end the load test, not only the server
            signal.signal(number, signal.default_int_handler)
        supervisor.start(plan.redis())
        supervisor.wait_until_ready(["redis"], START_TIMEOUT_S)
        components = [*plan.llm(), *plan.encoder_workers(0 if only_api else 1), _api(plan, ready=not only_api)]
        for component in components:
            supervisor.start(component)
        supervisor.wait_until_ready([it.name for it in components], START_TIMEOUT_S)
        environment = plan.environment
        yield OwnServer(
            f"http://127.0.0.1:{settings.port}",
            environment["EYEPIECE_LLM_URL"],
            environment.get("EYEPIECE_LLM_API_KEY", ""),
            environment["EYEPIECE_REDIS_URL"],
            data_dir,
            installed,
        )


def _api(plan: Plan, *, ready: bool) -> Component:
    """The API, waited for until it is ready, or only alive."""
    component = plan.api()
    return component if ready else replace(component, is_ready=http_probe("127.0.0.1", plan.settings.port, "/livez"))


def _report(change: Change) -> None:
    print(f"# {change.name} {change.state} {change.detail}", flush=True)
