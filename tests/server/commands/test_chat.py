"""`eyepiece chat` against a server that is only a transport."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from server.commands.api_client import ApiClient
from server.commands.chat import ChatOptions, chat
from server.commands.outcome import CommandError, ExitCode

SLIDE = {
    "id": "5e" * 32,
    "filename": "case.svs",
    "status": "ready",
    "size_bytes": 5,
    "vendor": "aperio",
    "width": 4096,
    "height": 3072,
    "mpp": 0.5,
    "objective_power": None,
    "created_at": "2026-11-29T10:00:00Z",
    "warnings": [],
    "encodings": [],
    "tile_count": 7,
    "encoder_id": "0123",
    "error": None,
}
MODELS = [
    {"id": name, "title": name.title(), "notice": f"{name}: research use only.", "state": "ok", "topics": topics}
    for name, topics in (("demo", [{"name": "grade"}, {"name": "stroma"}]), ("other", []))
]
DONE: dict[str, Any] = {"remembered": True, "conversation_id": "conv_1", "warnings": []}


class Server:
    """Answers what it is asked, and notes it; `refusals` come first, and `interrupts` break off a stream."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.judged: list[tuple[str, dict[str, Any]]] = []
        self.followed: list[str] = []
        self.refusals: list[dict[str, Any]] = []
        self.warnings: list[dict[str, str]] = []
        self.interrupts = 0
        self.last_event = "ready"

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/v1")
        if path == "/models":
            return httpx.Response(200, json={"data": MODELS})
        if path.endswith("/feedback"):
            self.judged.append((path, json.loads(request.content)))
            return httpx.Response(200, json={"object": "feedback", "verdict": "agree"})
        if path.endswith("/events"):
            self.followed.append(str(request.url.params))
            data = "{}" if self.last_event == "ready" else json.dumps({"code": "no_tissue", "detail": "There is none."})
            return httpx.Response(200, text=f"event: {self.last_event}\ndata: {data}\n\n")
        if path.endswith("/questions"):
            return self._answer(json.loads(request.content))
        if path == "/slides":
            return httpx.Response(200, json={"data": [SLIDE], "next_cursor": None, "complete": True})
        return httpx.Response(200, json=SLIDE)

    def _answer(self, body: dict[str, Any]) -> httpx.Response:
        self.asked.append(body)
        if self.refusals:
            return httpx.Response(409, json=self.refusals.pop())
        turn = len([it for it in self.asked if it.get("conversation_id")]) + 1
        done = DONE | {"answer": "So.", "model": body["model"], "turn": turn, "warnings": self.warnings}
        if body.get("stream") is False:
            return httpx.Response(200, json=done)
        return httpx.Response(200, content=self._events(done))

    def _events(self, done: dict[str, Any]) -> Iterator[bytes]:
        yield f"event: notice\ndata: {json.dumps({'notice': 'x', 'warnings': self.warnings})}\n\n".encode()
        yield b'event: token\ndata: {"text": "S"}\n\n'
        if self.interrupts:
            self.interrupts -= 1
            raise KeyboardInterrupt
        yield b'event: token\ndata: {"text": "o."}\n\n'
        yield f"event: done\ndata: {json.dumps(done)}\n\n".encode()


@pytest.fixture
def server() -> Server:
    return Server()


def talk(server: Server, *lines: str, slide: str = "5e" * 32, **options: Any) -> None:
    client = ApiClient("http://eyepiece.test", transport=httpx.MockTransport(server))
    chat(client, ChatOptions(slide, **options), iter(lines))


def test_the_notice_comes_before_the_first_question_and_follow_ups_go_on(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(server, "One?\n", "\n", " Two?")

    shown = capsys.readouterr().out
    introduced = "case.svs, slide 5e5e5e5e5e5e\nDemo: demo: research use only.\nIt can be asked about: grade, stroma.\n"
    assert shown.startswith(f"{introduced}So.\n[demo, turn 1, about the whole slide]\n")
    assert [(it["question"], it.get("conversation_id")) for it in server.asked] == [("One?", None), ("Two?", "conv_1")]
    assert shown.count("research use only") == 1
    assert "/help" not in shown, "a script needs no hint"


def test_what_is_doubtful_stands_before_the_answer(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.warnings = [{"code": "beyond_trained_turns", "detail": "This is turn 9."}]

    talk(server, "One?")

    assert "doubt: This is turn 9.\nSo.\n" in capsys.readouterr().out


def test_a_new_conversation_another_model_and_the_end(server: Server) -> None:
    said = "One?|/new|Two?|/model other|Three?|/slide|Four?|/slide 5e5e5e|Five?|/quit|No"
    talk(server, *said.split("|"))

    asked = [(it["question"], it["model"], it.get("conversation_id")) for it in server.asked]
    assert asked == [
        ("One?", "demo", None),
        ("Two?", "demo", None),
        ("Three?", "other", "conv_1"),
        ("Four?", "other", "conv_1"),
        ("Five?", "other", None),
    ]


def test_a_region_is_asked_about_until_another_slide_is(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    said = "One?|/region 0,0,512,256|Two?|Three?|/region slide|Four?|/slide 5e5e5e|Five?|/region"
    talk(server, *said.split("|"))

    drawn = {"rectangle": {"x": 0, "y": 0, "width": 512, "height": 256}}
    assert [it.get("region") for it in server.asked] == [None, drawn, drawn, "slide", None]
    assert capsys.readouterr().out.endswith("Questions are about what the conversation was about last.\n")


def test_an_answer_that_broke_off_is_not_judged_in_the_name_of_the_one_before(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    def lines() -> Iterator[str]:
        yield "One?"
        server.interrupts = 1
        yield "Two?"
        yield "/feedback disagree"

    client = ApiClient("http://eyepiece.test", transport=httpx.MockTransport(server))
    chat(client, ChatOptions("5e" * 32, is_spoken=True), lines())

    assert server.judged == []
    assert "There is no answer to judge" in capsys.readouterr().err


def test_the_last_answer_is_judged(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    talk(server, "One?", "Two?", "/feedback disagree  Not at all. ", "/feedback agree")

    place = "/conversations/conv_1/turns/2/feedback"
    assert server.judged == [
        (place, {"verdict": "disagree", "words": "Not at all."}),
        (place, {"verdict": "agree"}),
    ]
    assert "Noted: disagree, on turn 2." in capsys.readouterr().out


def test_ctrl_c_stops_an_answer_and_not_the_chat(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.interrupts = 1

    talk(server, "One?", "Two?", is_spoken=True)

    shown = capsys.readouterr().out
    assert "\nS\n(stopped; this turn is not remembered)\nSo.\n" in shown
    assert [it.get("conversation_id") for it in server.asked] == [None, None]


def test_ctrl_c_at_the_prompt_says_how_to_end(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    class Typed(Iterator[str]):
        said = iter([KeyboardInterrupt, "One?"])

        def __next__(self) -> str:
            said = next(self.said)
            if isinstance(said, str):
                return said
            raise said

    client = ApiClient("http://eyepiece.test", transport=httpx.MockTransport(server))
    chat(client, ChatOptions("5e" * 32, is_spoken=True), Typed())

    assert "/quit or Ctrl-D ends the chat." in capsys.readouterr().out
    assert len(server.asked) == 1


def test_a_person_is_told_what_went_wrong_and_goes_on(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.refusals = [{"code": "overloaded", "detail": "Too many questions."}]

    talk(server, "One?", "/nothing", "/feedback", "/feedback right", "/model none", "Two?", is_spoken=True)

    told = capsys.readouterr()
    assert told.err.startswith("eyepiece: Too many questions.\neyepiece: There is no command /nothing: /help shows")
    assert told.err.count("eyepiece: ") == 5
    assert "So.\n" in told.out


@pytest.mark.parametrize("line", ["/nothing", "/feedback agree", "/feedback perhaps", "/model none", "/region 1,2"])
def test_a_script_ends_at_what_cannot_be_done(server: Server, line: str) -> None:
    with pytest.raises(CommandError) as caught:
        talk(server, line, "One?")

    assert caught.value.exit_code == ExitCode.USAGE
    assert server.asked == []


def test_a_script_ends_where_the_server_refuses(server: Server) -> None:
    server.refusals = [{"code": "overloaded", "detail": "Too many questions."}]

    with pytest.raises(CommandError, match="Too many questions") as caught:
        talk(server, "One?", "Two?")

    assert caught.value.exit_code == ExitCode.REFUSED
    assert len(server.asked) == 1


def test_a_slide_that_is_not_ready_is_waited_for(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.refusals = [{"code": "slide_not_ready", "detail": "Being encoded."}]

    talk(server, "One?", model="other")

    assert server.followed == ["model=other"]
    assert "being encoded for other" in capsys.readouterr().out
    assert [it["question"] for it in server.asked] == ["One?", "One?"]


def test_a_slide_that_fails_says_why(server: Server) -> None:
    server.refusals = [{"code": "slide_not_ready", "detail": "Being encoded."}]
    server.last_event = "failed"

    with pytest.raises(CommandError, match=r"There is none\.") as caught:
        talk(server, "One?")

    assert (caught.value.exit_code, caught.value.problem_code) == (ExitCode.FAILED, "no_tissue")


def test_for_scripts_everything_is_a_line_of_json(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    talk(server, "One?", "/feedback agree", "/model", "/model other", "/slide", "/new", "Two?", as_json=True)

    answer, given, models, slide, other = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (answer["answer"], answer["model"], other["model"]) == ("So.", "demo", "other")
    assert given["object"] == "feedback"
    assert [it["id"] for it in models["models"]] == ["demo", "other"]
    assert slide["id"] == SLIDE["id"]


def test_a_conversation_can_be_gone_on_with(server: Server) -> None:
    talk(server, "One?", conversation_id="conv_0")

    assert server.asked[0]["conversation_id"] == "conv_0"
