"""`eyepiece eval-honesty` through HTTP, against a server that is only a transport."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from evaluation.exam import Specimen
from evaluation.honesty import plan_honesty
from server.commands import eval_honesty
from server.commands.api_client import ApiClient
from server.commands.eval_demo import EvalOptions
from server.commands.eval_honesty import Beside
from server.commands.eval_slides import ReadySlide
from server.commands.outcome import CommandError

SEED = 101


class Examined:
    """Says what is true, by the question's words; counts conversations."""

    def __init__(self) -> None:
        self.answers = {question.text: question.answer for it in plan_honesty(1, SEED) for question in it.questions}
        self.continued = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.continued += "conversation_id" in body
        return httpx.Response(200, json={"answer": self.answers[body["question"]], "conversation_id": "conv_1"})


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> Examined:
    server = Examined()

    def ready(client: ApiClient, specimens: list[Specimen], folder: Path) -> Iterator[ReadySlide]:
        yield from (ReadySlide(specimen, "a" * 64) for specimen in specimens)

    def client_of(options: EvalOptions) -> ApiClient:
        return ApiClient("http://eyepiece.test", transport=httpx.MockTransport(server))

    monkeypatch.setattr(eval_honesty, "ready_slides", ready)
    monkeypatch.setattr(eval_honesty, "examined_server", client_of)
    return server


def test_every_turn_is_asked_and_other_runs_stand_beside(
    examined: Examined, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tmp_path / "before.json"
    before.write_text(json.dumps({"rows": [{"row": "tumour: right, all wordings", "right": 1, "asked": 4}]}))
    options = EvalOptions(1, SEED, json_path=tmp_path / "out.json")

    # Of a single slide not every language is asked; what was not asked is not reached.
    with pytest.raises(CommandError, match=r"Not reached: .*Spanish"):
        eval_honesty.eval_honesty(options, [Beside.parsed(f"before={before}")])

    shown = capsys.readouterr().out
    turns = sum(len(it.questions) - 1 for it in plan_honesty(1, SEED))
    assert examined.continued == turns
    assert "25.0%" in next(line for line in shown.splitlines() if "tumour: right, all wordings" in line)
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert next(row for row in rows if row["row"] == "tumour: right, all wordings")["right"] > 10


@pytest.mark.parametrize("text", ["before", "=x", "before=missing.json"])
def test_a_run_that_cannot_stand_beside_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match="NAME=FILE"):
        Beside.parsed(text)
