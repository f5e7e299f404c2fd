"""`eyepiece slides` against a server that is only a transport."""

import io
import json
import sys
from typing import Any

import httpx
import pytest

from server.commands.api_client import ApiClient
from server.commands.outcome import CommandError, ExitCode
from server.commands.slides import ListOptions, delete_slide, describe_slide, list_slides, show_slide

ENCODING = {"model": "demo", "status": "ready", "tile_count": 7, "encoder_id": "0123", "error": None, "warnings": []}


def slide(number: int) -> dict[str, Any]:
    return {
        "id": f"{number:064x}",
        "filename": f"s{number}.svs",
        "status": "ready",
        "size_bytes": 3 * 2**20,
        "vendor": "aperio",
        "width": 4096,
        "height": 3072,
        "mpp": 0.5,
        "objective_power": 20.0,
        "created_at": "2026-11-29T10:11:12.123Z",
        "error": None,
        "warnings": [{"code": "mpp_contradicted", "detail": "Two resolutions.\x1b[2J"}],
        "encodings": [ENCODING, ENCODING | {"model": "h", "tile_count": 3}],
    }


class Server:
    """250 slides."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.complete = True

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.path.removeprefix('/v1/slides')}?{request.url.params}")
        if request.method == "DELETE":
            return httpx.Response(204)
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "demo", "kind": "tiles"}, {"id": "h", "kind": "levels"}]})
        if request.url.path != "/v1/slides":
            return httpx.Response(200, json=slide(int(request.url.path[-64:], 16)))
        begin, limit = int(request.url.params.get("cursor", "0")), int(request.url.params["limit"])
        end = min(begin + limit, 250)
        page = {"data": [slide(number) for number in range(begin, end)], "complete": self.complete}
        return httpx.Response(200, json=page | {"next_cursor": str(end) if end < 250 else None})


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def client(server: Server) -> ApiClient:
    return ApiClient("http://eyepiece.test", transport=httpx.MockTransport(server))


def test_the_newest_are_listed_and_that_there_are_more(client: ApiClient, capsys: pytest.CaptureFixture[str]) -> None:
    list_slides(client, ListOptions(most=2), as_json=False)

    assert capsys.readouterr().out == (
        "000000000000  ready     2026-11-29 10:11  s0.svs\n"
        "000000000000  ready     2026-11-29 10:11  s1.svs\n"
        "There are more: --limit 4, or --all.\n"
    )


def test_all_are_gone_through_page_by_page(
    client: ApiClient, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    list_slides(client, ListOptions("ready", "s", None), as_json=True)

    listed = json.loads(capsys.readouterr().out)
    assert [it["filename"] for it in listed["slides"]] == [f"s{number}.svs" for number in range(250)]
    assert (listed["more"], listed["complete"]) == (False, True)
    assert server.asked[1] == "GET ?status=ready&name=s&limit=100&cursor=100"


def test_a_list_from_which_slides_may_be_missing_says_so(
    client: ApiClient, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.complete = False

    list_slides(client, ListOptions(most=1), as_json=False)

    assert "Older slides may be missing" in capsys.readouterr().out


def test_a_slide_is_shown_with_encodings_and_doubts(client: ApiClient, capsys: pytest.CaptureFixture[str]) -> None:
    show_slide(client, f"{7:064x}", as_json=False)

    shown = capsys.readouterr().out
    assert "s7.svs (3.0 MiB), aperio\n" in shown
    assert "4096 × 3072 at 0.5 µm/px, 20×\n" in shown
    assert "demo       ready, 7 tiles, encoder 0123\n" in shown
    assert "h          ready, 3 regions, encoder 0123\n" in shown
    assert "doubt      Two resolutions.[2J\n" in shown


def test_a_script_deletes_with_yes_alone(client: ApiClient, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError, match="say --yes") as caught:
        delete_slide(client, f"{7:064x}", yes=False, as_json=True)
    assert caught.value.exit_code == ExitCode.USAGE
    assert [it for it in server.asked if it.startswith("DELETE")] == []

    delete_slide(client, f"{7:064x}", yes=True, as_json=True)

    assert json.loads(capsys.readouterr().out) == {"deleted": f"{7:064x}"}
    assert server.asked[-1] == f"DELETE /{7:064x}?"


@pytest.mark.parametrize(
    ("said", "deleted"), [("y\n", True), ("yes\n", True), ("\n", False), ("n\n", False), ("", False)]
)
def test_a_person_is_asked(
    client: ApiClient,
    server: Server,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    deleted: bool,
) -> None:
    terminal = io.StringIO(said)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)

    if deleted:
        delete_slide(client, f"{7:064x}", yes=False, as_json=False)
    else:
        with pytest.raises(CommandError, match="Nothing was deleted"):
            delete_slide(client, f"{7:064x}", yes=False, as_json=False)

    assert server.asked[-1].startswith("DELETE") == deleted
    assert "s7.svs" in capsys.readouterr().err


def test_what_is_said_of_slides_is_asked_for_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        said = {"case": "S1", "stain": "HE", "patient_ref": "p1\x1b[2J", "labels": ["a", "b"], "accession": None}
        found = slide(1) | said
        is_page = request.url.path in ("/v1/slides", "/v1/models")
        return httpx.Response(200, json={"data": [found], "complete": True, "next_cursor": None} if is_page else found)

    client = ApiClient("http://eyepiece.test", transport=httpx.MockTransport(answer))
    list_slides(client, ListOptions(about={"case": "S1", "label": "a"}), as_json=False)
    assert dict(asked[0].url.params) == {"case": "S1", "label": "a", "limit": "20"}

    describe_slide(client, "0" * 63 + "1", {"case": "S1", "stain": "", "labels": [""]}, as_json=False)
    (changed,) = [it for it in asked if it.method == "PATCH"]
    assert json.loads(changed.content) == {"case": "S1", "stain": None, "labels": None}
    shown = capsys.readouterr().out
    assert "case       S1\npatient    p1[2J\nstain      HE\nlabels     a, b\n" in shown
    with pytest.raises(CommandError, match="Say what to change"):
        describe_slide(client, "0" * 63 + "1", {}, as_json=False)
