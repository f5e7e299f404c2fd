"""The demo model on slides that it never saw, through the whole server: what `make eval-demo` asks, of few slides.

The short form of that examination, with its criteria, is a long test; here each condition alone has to show what it is
for, of which thirty questions tell enough.
"""

import os
from collections.abc import Sequence

import pytest
from rich.console import Console
from running_server import RunningServer

from evaluation.criteria import SHORT, check, missed
from evaluation.exam import (
    ANOTHER_SLIDE,
    AS_IS,
    FINER,
    FOLLOW_UP,
    RESTAINED,
    SHORT_SIZE,
    UNSEEN_WORDINGS,
    ExamSize,
    plan_exam,
)
from evaluation.judge import Judgement
from evaluation.score import chance_agreement, grouped, score
from evaluation.table import table_text
from server.commands.api_client import ApiClient
from server.commands.eval_demo import hold_exam

pytestmark = pytest.mark.vllm

FEW = ExamSize(slides=4, unseen=2, follow_up=1, another=2, shuffled=0, blind=0, finer=1, restained=1)


def examined(server: RunningServer, size: ExamSize) -> Sequence[Judgement]:
    with ApiClient(server.url) as client:
        return hold_exam(client, plan_exam(size), Console(quiet=True))


def test_the_demo_model_sees_what_was_drawn_and_of_another_slide_no_more_than_chance(server: RunningServer) -> None:
    judged = grouped(examined(server, FEW), lambda judgement: judgement.asked.condition)
    right = {condition: score(found).share for condition, found in judged.items()}

    assert right.keys() == {AS_IS, UNSEEN_WORDINGS, FOLLOW_UP, ANOTHER_SLIDE, FINER, RESTAINED}
    for condition in (AS_IS, UNSEEN_WORDINGS, FOLLOW_UP, FINER, RESTAINED):
        assert right[condition] >= 0.9, right
    assert abs(right[ANOTHER_SLIDE] - chance_agreement(judged[ANOTHER_SLIDE])) <= SHORT.from_chance, right


@pytest.mark.skipif("EYEPIECE_LONG_TESTS" not in os.environ, reason="a thousand questions; make eval-demo asks more")
def test_the_demo_model_passes_the_short_examination(server: RunningServer) -> None:
    judgements = examined(server, SHORT_SIZE)

    criteria = check(judgements, SHORT)
    assert missed(criteria) == [], f"\n{table_text(judgements, criteria)}"
