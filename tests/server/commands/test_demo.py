"""`eyepiece demo`: what it asks and prints, against a server that is only a transport."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.commands.api_client import ApiClient
from server.commands.demo import demo_questions, examine, sample_slide, verdict
from synthetic.slide_truth import slide_truth

TRUTH = slide_truth(11)
SLIDE_ID = "a" * 64


class AnsweringServer:
    """Answers the demo's questions about `TRUTH`; the second one wrongly."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(json.loads(request.content))
        number = len(self.asked)
        answer = demo_questions(TRUTH)[number - 1].answer if number != 2 else "Necrosis is not seen."
        done = {
            "answer": answer,
            "conversation_id": "conv_1",
            "usage": {"prompt_tokens": 100 * number, "cached_tokens": 100 * number - 100},
            "timing": {"cache_ms": 0.5, "time_to_first_token_ms": 90.0 / number, "total_ms": 100.0},
        }
        notice = {"notice": "Research use only.", "warnings": []}
        events = [("notice", notice), ("token", {"text": answer}), ("done", done)]
        return httpx.Response(200, text="".join(f"event: {n}\ndata: {json.dumps(d)}\n\n" for n, d in events))


def test_answers_stand_beside_the_truth_and_all_but_the_first_are_follow_ups(
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = AnsweringServer()
    client = ApiClient("http://eyepiece.test", transport=httpx.MockTransport(server))

    done = examine(client, SLIDE_ID, TRUTH)

    shown = capsys.readouterr().out
    first = "Research use only.\n\nThe growth pattern is glandular.  | truth: glandular ✓\n"
    assert f"> What is the growth pattern?\n{first}" in shown
    assert shown.count("Research use only.") == 1
    assert "> (follow-up) Where is the necrosis?\nNecrosis is not seen.  | truth: lower right ✗\n" in shown
    assert shown.count("✓") == 2
    assert ", grade 1 ✓" in shown, "a letter is shown with its words"
    assert "(first token after 45 ms, embedding 0.5 ms, 100 of 200 prompt tokens cached)" in shown
    assert [options.get("conversation_id") for options in server.asked] == [None, "conv_1", "conv_1"]
    assert done["conversation_id"] == "conv_1"


@pytest.mark.parametrize("seed", range(8))
def test_the_demo_asks_openly_for_a_place_and_with_options(seed: int) -> None:
    truth = slide_truth(seed)
    questions = demo_questions(truth)

    assert [question.form for question in questions] == ["free", "free", "letter"]
    for question in questions:
        assert verdict(question, truth, question.answer).endswith("✓")
        assert verdict(question, truth, "Mitoses.").endswith("✗")


def test_a_sample_that_an_older_release_drew_is_drawn_again(tmp_path: Path) -> None:
    folder = tmp_path / "sample-slides"
    folder.mkdir()
    (folder / "sample-3.svs").write_text("of another release")

    path, truth = sample_slide(tmp_path, 3)

    assert (path, truth) == (folder / "sample-3.svs", slide_truth(3))
    assert path.stat().st_size > 100_000
    assert json.loads(path.with_suffix(".json").read_text())["seed"] == 3


def test_without_a_seed_every_sample_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def draw(options: Any) -> Any:
        drawn.append(options.seed)
        return slide_truth(options.seed)

    monkeypatch.setattr("server.commands.demo.make_slide", draw)
    for _ in range(3):
        sample_slide(tmp_path, None)

    assert len(set(drawn)) == 3
