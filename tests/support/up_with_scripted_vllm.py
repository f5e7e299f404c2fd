"""The `eyepiece` command line with one change: `up` starts the scripted vLLM where vLLM would be. All else is real."""

import scripted_vllm
from chaos.up_with_stand_in import PlanWithStandIn, run_with


class PlanWithScript(PlanWithStandIn):
    """The components of `eyepiece up`, but that one."""

    vllm = scripted_vllm.__name__


if __name__ == "__main__":
    run_with(PlanWithScript)
