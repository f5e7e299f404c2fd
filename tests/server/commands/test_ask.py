"""`eyepiece ask` against a server that is only a transport."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.commands.api_client import ApiClient
from server.commands.ask import Question, ask, ask_case
from server.commands.outcome import CommandError, ExitCode

HANDED = Path(__file__).parents[4] / "shared/cases/answer_stream_u2028.txt"
DONE: dict[str, Any] = {
    "answer": "Gland forming.",
    "conversation_id": "conv_1",
    "model": "demo",
    "encoder_id": "0123456789abcdef",
    "notice": "Research use only, not a diagnosis.",
    "usage": {"prompt_tokens": 600, "slide_tokens": 576, "cached_tokens": 512, "completion_tokens": 3},
    "timing": {"cache_ms": 0.7, "time_to_first_token_ms": 16.0, "total_ms": 94.0},
}


def client_of(handler: Callable[[httpx.Request], httpx.Response]) -> ApiClient:
    return ApiClient("http://eyepiece.test", transport=httpx.MockTransport(handler))


def stream_of(*events: tuple[str, dict[str, Any]], kind: str = "tiles") -> ApiClient:
    text = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
    models = httpx.Response(200, json={"data": [{"id": "other", "kind": "tiles"}, {"id": "demo", "kind": kind}]})
    return client_of(lambda it: models if it.url.path == "/v1/models" else httpx.Response(200, text=text))


def test_the_notice_comes_first_then_tokens_usage_timing_and_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    doubt = {"code": "beyond_trained_turns", "detail": "This is turn 9."}
    notice = {"notice": DONE["notice"], "warnings": [doubt]}
    client = stream_of(
        ("notice", notice), ("token", {"text": "Gland "}), ("token", {"text": "forming."}), ("done", DONE)
    )

    ask(client, Question("a" * 64, "What?"), as_json=False)

    shown = capsys.readouterr().out
    assert shown.startswith(
        "Research use only, not a diagnosis.\ndoubt: This is turn 9.\n\nGland forming.\n\nabout the whole slide\n"
    )
    assert "576 slide tokens, 512 of 600 prompt tokens cached" in shown
    assert "first token after 16 ms" in shown
    assert shown.endswith(f'eyepiece ask {"a" * 64} "…" --conversation conv_1\n')


def test_choices_are_asked_for_and_shown_with_their_shares(capsys: pytest.CaptureFixture[str]) -> None:
    shares = [{"text": "Yes", "probability": 0.75}, {"text": "No", "probability": 0.25}]
    client = stream_of(("token", {"text": "Yes"}), ("done", {**DONE, "choices": shares}))
    question = Question("a" * 64, "Is there?", choices=("Yes", "No"))

    ask(client, question, as_json=False)

    assert question.body == {"question": "Is there?", "choices": ["Yes", "No"]}
    assert "Yes\n0.7500 of all choices: Yes\n0.2500 of all choices: No\n" in capsys.readouterr().out


def test_an_answer_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    client = stream_of(("token", {"text": "\x1b]0;owned\x07\x1b[2J\u202edone\r"}), ("done", DONE))

    ask(client, Question("a" * 64, "What?"), as_json=False)

    shown = capsys.readouterr().out
    assert shown.startswith("]0;owned[2Jdone\n")


def test_an_answer_without_tokens_has_no_time_to_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    client = stream_of(("done", DONE | {"timing": DONE["timing"] | {"time_to_first_token_ms": None}}))

    ask(client, Question("a" * 64, "What?"), as_json=False)

    assert "no token" in capsys.readouterr().out


def test_an_answer_that_breaks_off_with_an_error_says_why() -> None:
    error = {"code": "language_model_failed", "detail": "The language model broke off; ask again."}
    client = stream_of(("token", {"text": "Gla"}), ("error", error))

    with pytest.raises(CommandError, match="broke off; ask again") as caught:
        ask(client, Question("a" * 64, "What?"), as_json=False)

    assert caught.value.exit_code == ExitCode.FAILED
    assert caught.value.problem_code == "language_model_failed"


def test_a_stream_that_just_ends_is_no_answer() -> None:
    with pytest.raises(CommandError, match="before its end"):
        ask(stream_of(("token", {"text": "Gla"})), Question("a" * 64, "What?"), as_json=False)


def test_for_scripts_it_asks_without_streaming_and_prints_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[dict[str, Any]] = []

    def serve(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        return httpx.Response(200, json=DONE)

    ask(client_of(serve), Question("a" * 64, "What?", "conv_1"), as_json=True)

    assert asked == [{"question": "What?", "conversation_id": "conv_1", "stream": False}]
    assert json.loads(capsys.readouterr().out) == DONE


@pytest.mark.parametrize(
    ("region", "sent"),
    [
        ("12000, 8000,4096,4096.5", {"rectangle": {"x": 12000.0, "y": 8000.0, "width": 4096.0, "height": 4096.5}}),
        ("slide", "slide"),
        ("reg_0c", "reg_0c"),
    ],
)
def test_a_region_is_four_numbers_or_a_name(region: str, sent: object) -> None:
    assert Question("a" * 64, "What?", region=region).body == {"question": "What?", "region": sent}


@pytest.mark.parametrize("region", ["1,2,3", "1,2,3,4,5", "1,2,3,four", ","])
def test_what_is_no_region_is_refused_with_an_example(region: str) -> None:
    with pytest.raises(CommandError, match="12000,8000,4096,4096"):
        ask(stream_of(("done", DONE)), Question("a" * 64, "What?", region=region), as_json=False)


def test_it_says_what_the_answer_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    scope = {"kind": "region", "region_id": "reg_0c", "tiles": 29, "area_mm2": 0.3612}
    ask(stream_of(("done", DONE | {"scope": scope})), Question("a" * 64, "What?"), as_json=False)
    ask(stream_of(("done", DONE | {"scope": scope | {"area_mm2": None}})), Question("a" * 64, "What?"), as_json=False)
    ask(stream_of(("done", DONE | {"scope": {"kind": "slide"}})), Question("a" * 64, "What?"), as_json=False)
    of_levels = stream_of(("done", DONE | {"scope": scope | {"tiles": 5}}), kind="levels")
    ask(of_levels, Question("a" * 64, "What?"), as_json=False)

    shown = capsys.readouterr().out
    assert "about region reg_0c (29 tiles, 0.36 mm²)\nmodel demo" in shown
    assert "about region reg_0c (29 tiles)\nmodel demo" in shown
    assert "about the whole slide\nmodel demo" in shown
    assert "about region reg_0c (5 regions, 0.36 mm²)\nmodel demo" in shown


@pytest.mark.skipif(not HANDED.is_file(), reason="the stream from the field is not here")
def test_the_stream_from_the_field_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    client = client_of(lambda _: httpx.Response(200, content=HANDED.read_bytes()))

    ask(client, Question("a" * 64, "What?"), as_json=False)

    assert capsys.readouterr().out.startswith("one\u2028two\n")


SLIDES = [
    {"slide_id": "a" * 64, "filename": "one.svs", "stain": "HE", "body_site": None},
    {"slide_id": "b" * 64, "filename": "two.svs", "stain": None, "body_site": None},
]
REFUSED = {"slide_id": "b" * 64, "code": "slide_not_ready", "detail": "It is being encoded.\x1b[2J"}


def case_client(*answers: dict[str, Any]) -> ApiClient:
    first = [
        ("notice", {"slide_id": "a" * 64, "notice": DONE["notice"]}),
        ("token", {"slide_id": "a" * 64, "text": "Gland forming."}),
        ("answer", {"slide_id": "a" * 64, **DONE}),
    ]
    told = {"case": "c", "question": "What?", "slides": SLIDES, "answers": answers}
    return stream_of(("case", {"slides": SLIDES}), *first, ("refused", REFUSED), ("done", told))


def test_the_slides_of_a_case_answer_under_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    answers = [{"slide_id": "a" * 64, "answer": DONE, "error": None}, {"answer": None, "error": REFUSED}]

    ask_case(case_client(*answers), "c", Question("", "What?"), as_json=False)

    shown = capsys.readouterr().out
    assert "nothing is concluded from their answers together" in shown
    first, second = shown.split("── ")[1:]
    assert first.startswith("aaaaaaaaaaaa  one.svs, HE\nResearch use only")
    assert first.endswith("Gland forming.\n\n")
    assert second == "bbbbbbbbbbbb  two.svs\nno answer: It is being encoded.[2J (slide_not_ready)\n"


def test_a_case_of_which_no_slide_answers_fails(capsys: pytest.CaptureFixture[str]) -> None:
    client = case_client({"slide_id": "b" * 64, "answer": None, "error": REFUSED})

    with pytest.raises(CommandError, match="No slide of the case answered") as refused:
        ask_case(client, "c", Question("", "What?"), as_json=False)

    assert refused.value.exit_code == ExitCode.FAILED
