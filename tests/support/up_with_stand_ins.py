"""The `eyepiece` command line, whose `up` starts small stand-ins where vLLM and the encoder workers would be.

Redis, the API, the worker's pages, supervision and everything that `up` writes are real; no torch is loaded.
"""

import asyncio
import sys

from chaos import stand_in_vllm
from prometheus_client import CollectorRegistry

from server import __main__ as command_line
from server.commands import up
from server.encoding.worker_health import WorkerHealth
from server.encoding.worker_presence import announce_worker
from server.machine.supervise import Component
from server.settings import Settings
from server.storage.redis_client import connect_redis
from server.telemetry.metrics import WorkerMetrics


class PlanWithStandIns(up.Plan):
    """The components of `eyepiece up`, with other commands for two of them."""

    def llm(self) -> list[Component]:
        """On the port and with the name of vLLM's component."""
        return [_with_command(it, stand_in_vllm.__name__, it.command[-1]) for it in super().llm()]

    def encoder_workers(self, count: int) -> list[Component]:
        """Where the workers' pages are."""
        return [_with_command(it, __spec__.name, "worker-stand-in") for it in super().encoder_workers(count)]


def _with_command(component: Component, module: str, argument: str) -> Component:
    command = (sys.executable, "-m", module, argument)
    return Component(component.name, command, component.environment, component.log, component.is_ready)


async def _be_a_worker(settings: Settings) -> None:
    """Announced once, as warm: the tests are over before that is forgotten, or do not ask."""
    health = WorkerHealth(WorkerMetrics(CollectorRegistry()), settings.worker_host, settings.worker_port)
    health.start()
    await announce_worker(connect_redis(settings), "stand-in")
    health.ready = True
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1:] == ["worker-stand-in"]:
        asyncio.run(_be_a_worker(Settings()))
    else:
        up.Plan = PlanWithStandIns  # type: ignore[misc]
        up.require_vllm_unless_elsewhere = lambda settings: None
        command_line.main()
