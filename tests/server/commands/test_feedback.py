"""`eyepiece feedback export` against a server that is only a transport."""

import json

import httpx
import pytest

from server.commands.api_client import ApiClient
from server.commands.feedback import export
from server.commands.outcome import CommandError, ExitCode

LINES = [{"object": "feedback", "words": "one\u2028line"}, {"object": "feedback", "words": None}]


def client_of(content: bytes, asked: list[str], status: int = 200) -> ApiClient:
    def serve(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url.query, "ascii"))
        return httpx.Response(status, content=content)

    return ApiClient("http://eyepiece.test", transport=httpx.MockTransport(serve))


def in_lines(lines: list[dict[str, object]]) -> bytes:
    return b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)


@pytest.mark.parametrize(
    ("since", "query"),
    [
        (None, ""),
        ("2026-11-01", "since=2026-11-01T00%3A00%3A00Z"),
        ("2026-11-01T10:00:00+01:00", "since=2026-11-01T10%3A00%3A00%2B01%3A00"),
    ],
)
def test_every_line_is_printed(capsys: pytest.CaptureFixture[str], since: str | None, query: str) -> None:
    asked: list[str] = []

    export(client_of(in_lines(LINES), asked), since)

    assert [json.loads(line) for line in capsys.readouterr().out.rstrip("\n").split("\n")] == LINES
    assert asked == [query]


def test_what_cannot_be_read_fails_the_command_behind_all_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"object": "feedback.damaged", "turn": 1}, *LINES]

    with pytest.raises(CommandError, match="given for 1 turns cannot be read") as caught:
        export(client_of(in_lines(lines), []), None)

    assert caught.value.exit_code == ExitCode.FAILED
    assert capsys.readouterr().out.count("\n") == 3


def test_a_refusal_says_what_the_server_said() -> None:
    problem = json.dumps({"code": "invalid_request", "detail": "Give a moment."}).encode()

    with pytest.raises(CommandError, match=r"Give a moment\.") as caught:
        export(client_of(problem, [], 422), "yesterday")

    assert caught.value.exit_code == ExitCode.REFUSED
