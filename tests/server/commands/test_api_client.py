"""The command line's client against a server that is only a transport: errors as sentences, streams resumed."""

from collections.abc import Callable, Iterator

import httpx
import pytest

from server.commands.api_client import ApiClient, event_stream_lines, parse_events
from server.commands.outcome import CommandError, ExitCode
from server.errors import Unauthorized, openai_error
from server.machine.redis_server import free_loopback_port

Handler = Callable[[httpx.Request], httpx.Response]


def client_of(handler: Handler) -> ApiClient:
    return ApiClient("http://eyepiece.test", "eyp_key", transport=httpx.MockTransport(handler), reconnect_wait_s=0)


def test_events_are_parsed_and_comments_passed_over() -> None:
    lines = [
        ": keep-alive",
        "",
        "id: 1-0",
        "event: progress",
        'data: {"done":1,',
        'data: "total":2}',
        "",
        "data: {}",
        "",
    ]

    first, second = parse_events(lines)

    assert (first.name, first.data, first.id) == ("progress", {"done": 1, "total": 2}, "1-0")
    assert (second.name, second.data, second.id) == ("message", {}, None)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 10_000])
def test_lines_end_where_event_streams_end_them_and_nowhere_else(end: bytes, piece_bytes: int) -> None:
    said = "one\u2028two\u2029three\x85four\x0bfive\x0csix\x1cseven"
    text = end.join([b"event: token", f'data: {{"text": "{said}"}}'.encode(), b"", b"data: {}", b"", b""])
    pieces = [text[at : at + piece_bytes] for at in range(0, len(text), piece_bytes)]

    lines = list(event_stream_lines(pieces))

    assert lines[:4] == ["event: token", f'data: {{"text": "{said}"}}', "", "data: {}"]


def test_the_stream_of_another_server_is_a_sentence() -> None:
    for data in ("data: [1]", "data: {"):
        with pytest.raises(CommandError, match="cannot be read"):
            list(parse_events([data, ""]))


def test_an_answer_with_a_line_separator_arrives_whole() -> None:
    said = 'event: token\ndata: {"text": "one\u2028two\x85three"}\n\n'
    client = client_of(lambda _: httpx.Response(200, content=said.encode()))

    (event,) = client.answer_events("slide", {})

    assert event.data == {"text": "one\u2028two\x85three"}


def test_an_event_that_was_cut_off_is_none() -> None:
    assert list(parse_events(["event: token", 'data: {"text":"hal'])) == []


def test_progress_is_resumed_behind_the_last_event() -> None:
    seen: list[str | None] = []

    class BreaksOff(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b'id: 7-0\nevent: progress\ndata: {"stage":"tile","done":1,"total":1}\n\n'
            raise httpx.ReadError("cable pulled")

    def serve(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("Last-Event-ID"))
        if len(seen) == 1:
            return httpx.Response(200, stream=BreaksOff())
        return httpx.Response(200, text="id: 8-0\nevent: ready\ndata: {}\n\n")

    names = [event.name for event in client_of(serve).encode_events("a" * 64)]

    assert names == ["progress", "ready"]
    assert seen == [None, "7-0"]


def test_progress_that_breaks_off_again_and_again_ends() -> None:
    with pytest.raises(CommandError, match="broke off") as caught:
        list(client_of(lambda request: httpx.Response(200, text="")).encode_events("a" * 64))

    assert caught.value.exit_code == ExitCode.UNREACHABLE


def test_a_problem_of_the_server_is_its_sentence() -> None:
    problem = {"code": "slide_not_ready", "detail": "The slide is being encoded.", "status": 409}
    refused = httpx.Response(409, json=problem, headers={"Retry-After": "5"})

    with pytest.raises(CommandError, match=r"^The slide is being encoded. Try again in 5 s.$") as caught:
        client_of(lambda request: refused).answer("a" * 64, {"question": "?"})

    assert caught.value.exit_code == ExitCode.REFUSED
    assert caught.value.problem_code == "slide_not_ready"


@pytest.mark.parametrize("body", ["<html>Bad gateway</html>", "[]", '{"error": "?"}', ""])
def test_an_error_that_is_no_problem_still_ends_in_a_sentence(body: str) -> None:
    with pytest.raises(CommandError, match="answered 502") as caught:
        client_of(lambda request: httpx.Response(502, text=body)).slide("a" * 64)

    assert caught.value.exit_code == ExitCode.REFUSED


def test_an_error_of_the_openai_dialect_is_its_sentence() -> None:
    """`/v1/models`, which most commands ask first, is of that dialect."""
    body = openai_error(Unauthorized("Send a key."))

    with client_of(lambda request: httpx.Response(401, json=body)) as client, pytest.raises(CommandError) as caught:
        client.models()

    assert (str(caught.value), caught.value.problem_code) == ("Send a key.", "unauthorized")


def test_a_stream_that_is_refused_is_its_sentence() -> None:
    refused = httpx.Response(404, json={"code": "not_found", "detail": "There is no such slide."})

    with pytest.raises(CommandError, match="no such slide"):
        list(client_of(lambda request: refused).answer_events("a" * 64, {"question": "?"}))


def test_no_server_says_how_to_start_one() -> None:
    client = ApiClient(f"http://127.0.0.1:{free_loopback_port()}")

    with pytest.raises(CommandError, match="eyepiece up") as caught:
        client.slide("a" * 64)

    assert caught.value.exit_code == ExitCode.UNREACHABLE
    assert not client.is_ready()


@pytest.mark.parametrize("url", ["eyepiece", "ftp://127.0.0.1", "http://[::1"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(CommandError, match="not valid") as caught:
        ApiClient(url).slide("a" * 64)

    assert caught.value.exit_code == ExitCode.USAGE
