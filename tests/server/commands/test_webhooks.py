"""`eyepiece webhooks` against a server that is only a transport; what it says is the route's own."""

import json

import httpx
import pytest

from server.api.routes.webhooks import DeadLetter, DeadLetterList, Replayed, WebhookEndpointList, WebhookEndpointReport
from server.commands import webhooks
from server.commands.api_client import ApiClient
from server.commands.outcome import CommandError

EVENT = "evt_" + "0c" * 16
LETTER = DeadLetter(
    id=EVENT,
    type="slide.failed",
    slide_id="5e" * 32,
    attempts=20,
    tried_at=None,
    reason="status",
    status=503,
)
ENDPOINT = WebhookEndpointReport(name="lis", host="lis.example", events=["slide.ready"], waiting=1, dead=2)


class Server:
    """Answers the three routes, and keeps what it was sent."""

    def __init__(self, endpoints: list[WebhookEndpointReport], letters: list[DeadLetter]) -> None:
        self.endpoints, self.letters = endpoints, letters
        self.replayed: list[object] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/v1/webhooks":
            return httpx.Response(200, text=WebhookEndpointList(data=self.endpoints).model_dump_json())
        if path == "/v1/webhooks/lis/dead":
            return httpx.Response(200, text=DeadLetterList(data=self.letters).model_dump_json())
        if path == "/v1/webhooks/lis/replay":
            self.replayed.append(json.loads(request.content))
            return httpx.Response(202, text=Replayed(replayed=1).model_dump_json())
        return httpx.Response(404, json={"code": "not_found", "detail": "There is no webhook endpoint of this name."})


def client_of(server: Server) -> ApiClient:
    return ApiClient("http://eyepiece.test", transport=httpx.MockTransport(server))


def test_endpoints_letters_and_what_is_tried_again_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server([ENDPOINT], [LETTER])
    client = client_of(server)

    webhooks.show_endpoints(client, False)
    webhooks.show_dead(client, "lis", False)
    webhooks.replay(client, "lis", [], False)
    webhooks.replay(client, "lis", [EVENT], False)

    assert capsys.readouterr().out.splitlines() == [
        "lis  lis.example  slide.ready  1 waiting, 2 given up",
        f"{EVENT}  slide.failed  slide 5e5e5e5e5e5e  status 503 after 20 attempts",
        "1 event is tried again.",
        "1 event is tried again.",
    ]
    assert server.replayed == [{}, {"ids": [EVENT]}]


def test_nothing_is_said_as_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    client = client_of(Server([], []))

    webhooks.show_endpoints(client, False)
    webhooks.show_dead(client, "lis", False)

    shown = capsys.readouterr().out
    assert "EYEPIECE_WEBHOOKS" in shown
    assert "Nothing was given up." in shown


def test_json_is_the_routes_own(capsys: pytest.CaptureFixture[str]) -> None:
    webhooks.show_dead(client_of(Server([], [LETTER])), "lis", True)

    assert json.loads(capsys.readouterr().out)["data"][0]["reason"] == "status"


def test_an_unknown_endpoint_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError, match="no webhook endpoint"):
        webhooks.show_dead(client_of(Server([], [])), "others", False)
