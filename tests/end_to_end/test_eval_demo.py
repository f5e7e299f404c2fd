"""The demo model on slides that it never saw, through the whole server: the short form of `make eval-demo`."""

import pytest
from rich.console import Console
from running_server import RunningServer

from evaluation.criteria import SHORT, check, missed
from evaluation.exam import SHORT_SIZE, plan_exam
from evaluation.table import table_text
from server.commands.api_client import ApiClient
from server.commands.eval_demo import hold_exam

pytestmark = pytest.mark.vllm


def test_the_demo_model_passes_the_short_examination(server: RunningServer) -> None:
    with ApiClient(server.url) as client:
        judgements = hold_exam(client, plan_exam(SHORT_SIZE), Console(quiet=True))

    criteria = check(judgements, SHORT)
    assert missed(criteria) == [], f"\n{table_text(judgements, criteria)}"
