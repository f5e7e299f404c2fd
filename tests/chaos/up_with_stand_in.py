"""The `eyepiece` command line with one change: `up` starts the stand-in where vLLM would be. All else is real."""

import sys

from chaos import stand_in_vllm

from server import __main__ as command_line
from server.commands import up
from server.machine.redis_server import free_loopback_port
from server.machine.supervise import Component


class PlanWithStandIn(up.Plan):
    """The components of `eyepiece up`, but that one."""

    # The module in vLLM's place; it is run with the port to listen on.
    vllm = stand_in_vllm.__name__

    def llm(self) -> list[Component]:
        """Where vLLM's component would be, under its name."""
        port = free_loopback_port()
        self.environment["EYEPIECE_LLM_URL"] = f"http://127.0.0.1:{port}"
        command = (sys.executable, "-m", self.vllm, str(port))
        is_ready = up.http_probe("127.0.0.1", port, "/health")
        return [Component("vllm", command, dict(self.environment), self.logs / "vllm.log", is_ready)]


def run_with(plan: type[up.Plan]) -> None:
    """The command line, with another plan for `up`."""
    up.Plan = plan  # type: ignore[misc]
    up.require_vllm_unless_elsewhere = lambda settings: None
    command_line.main()


if __name__ == "__main__":
    run_with(PlanWithStandIn)
