"""`eyepiece eval-regions` through HTTP, against a server that is only a transport."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from evaluation.exam import Specimen
from evaluation.quadrants import quadrants_of
from server.commands import eval_regions
from server.commands.api_client import ApiClient
from server.commands.eval_demo import EvalOptions
from server.commands.eval_regions import ask_quadrants
from server.commands.eval_slides import ReadySlide
from server.commands.outcome import CommandError

SEED = 101
TRUTH = {asked.box: asked for asked in quadrants_of(SEED)}


class Examined:
    """Says what is true, or No to everything; a quadrant's first question finds the region not made yet."""

    def __init__(self, *, says_no: bool = False, too_small: int = 0) -> None:
        self.says_no, self.too_small = says_no, too_small
        self.asked: dict[tuple[float, ...], int] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        box = tuple(body["region"]["rectangle"][name] for name in ("x", "y", "width", "height"))
        self.asked[box] = self.asked.get(box, 0) + 1
        if list(TRUTH).index(box) < self.too_small:  # type: ignore[arg-type]
            return refusal(422, "region_too_small")
        if self.asked[box] == 1:
            return refusal(409, "region_not_ready", {"Retry-After": "0"})
        is_yes = TRUTH[box].has_necrosis and not self.says_no  # type: ignore[index]
        return httpx.Response(200, json={"answer": "Yes" if is_yes else "No", "timing": {"cache_ms": 40.0}})


def refusal(status: int, code: str, headers: dict[str, str] | None = None) -> httpx.Response:
    body: dict[str, Any] = {"code": code, "detail": "Why."}
    return httpx.Response(status, json=body, headers={"Content-Type": "application/problem+json", **(headers or {})})


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slides are there already."""

    def ready(client: ApiClient, specimens: list[Specimen], folder: Path) -> Iterator[ReadySlide]:
        yield from (ReadySlide(specimen, "a" * 64) for specimen in specimens)

    monkeypatch.setattr(eval_regions, "ready_slides", ready)


def client_of(server: Examined) -> ApiClient:
    return ApiClient("http://eyepiece.test", transport=httpx.MockTransport(server))


def test_every_quadrant_is_asked_about_and_waited_for() -> None:
    server = Examined()

    answers = list(ask_quadrants(client_of(server), 1, SEED))

    assert [it.is_right for it in answers] == [True] * 4
    assert server.asked == dict.fromkeys(TRUTH, 2)


def test_quadrants_of_too_few_tiles_are_left_out() -> None:
    assert len(list(ask_quadrants(client_of(Examined(too_small=3)), 1, SEED))) == 1


def test_too_few_right_answers_fail_and_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(eval_regions, "examined_server", lambda options: client_of(Examined(says_no=True)))
    options = EvalOptions(1, SEED, json_path=tmp_path / "out.json")

    with pytest.raises(CommandError, match="Too few"):
        eval_regions.eval_regions(options)

    shown = capsys.readouterr().out
    assert "3 of 4 right (75.0%)" in shown
    assert "in 40 ms (median), 40 ms at most" in shown
    assert f"wrong: seed {SEED}, lower right, has it True" in shown
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["score"] == {"having": {"right": 0, "asked": 1}, "others": {"right": 3, "asked": 3}}
