"""`eyepiece upload` against a server that is only a transport."""

import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from server.commands.api_client import ApiClient
from server.commands.outcome import CommandError, ExitCode
from server.commands.upload import UploadOptions, describe_slide, upload, upload_and_wait

SLIDE: dict[str, Any] = {
    "id": "a" * 64,
    "status": "queued",
    "filename": "slide.tiff",
    "width": 4096,
    "height": 3072,
    "mpp": 0.5,
    "tile_count": None,
    "error": None,
}
TILES: list[dict[str, Any]] = [{"id": "demo", "kind": "tiles"}]
PROGRESS = (
    'event: progress\ndata: {"stage":"tile","done":1,"total":1}\n\n'
    'event: progress\ndata: {"stage":"encode_tiles","done":7,"total":7}\n\n'
)

SENT = ["POST /v1/uploads", "PATCH /v1/uploads/u", "GET /ID"]


class SlideServer:
    """Answers as the contract says, and remembers what was asked of it."""

    def __init__(self, uploaded: dict[str, Any], afterwards: dict[str, Any], last_event: str = "ready") -> None:
        self.uploaded = SLIDE | uploaded
        self.afterwards = SLIDE | afterwards
        self.last_event = last_event
        self.asked: list[str] = []
        self.encode_options: dict[str, Any] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/v1/slides").replace("a" * 64, "ID")
        self.asked.append(f"{request.method} {path}")
        if path == "/v1/uploads":
            return httpx.Response(201, headers={"Location": "/v1/uploads/u"})
        if request.method == "PATCH":
            done = {"Upload-Offset": str(len(request.read())), "Eyepiece-Slide-Id": "a" * 64}
            return httpx.Response(204, headers=done)
        if path.endswith("/encode"):
            self.encode_options = json.loads(request.content)
            return httpx.Response(202, json=SLIDE)
        if path.endswith("/events"):
            return httpx.Response(200, text=f"{PROGRESS}event: {self.last_event}\ndata: {{}}\n\n")
        shown, self.uploaded = self.uploaded, self.afterwards
        return httpx.Response(200, json=shown)


@pytest.fixture(autouse=True)
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered in the home of whoever runs the tests."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "slide.tiff"
    file.write_bytes(b"II*\0")
    return file


def client_of(server: SlideServer) -> ApiClient:
    return ApiClient("http://eyepiece.test", transport=httpx.MockTransport(server))


def quiet() -> Console:
    return Console(file=io.StringIO())


def test_a_slide_is_sent_followed_and_shown_ready(path: Path) -> None:
    server = SlideServer({}, {"status": "ready", "tile_count": 7})

    slide = upload_and_wait(client_of(server), UploadOptions(path), quiet())

    assert describe_slide(slide, TILES).startswith("ready: slide.tiff, 4096 × 3072 px at 0.5 µm/px, 7 tiles")
    assert ", 7 regions\n" in describe_slide(slide, [{"id": "h", "kind": "levels"}, *TILES])
    assert server.asked == [*SENT, "GET /ID/events", "GET /ID"]


def test_what_is_doubtful_about_a_slide_is_shown(path: Path) -> None:
    doubt = {"code": "mpp_contradicted", "detail": "The file names two resolutions."}
    server = SlideServer({}, {"status": "ready", "warnings": [doubt]})

    assert "\ndoubt: The file names two resolutions.\n" in describe_slide(
        upload_and_wait(client_of(server), UploadOptions(path), quiet()), TILES
    )


def test_a_slide_that_is_known_and_ready_is_not_waited_for(path: Path) -> None:
    server = SlideServer({"status": "ready"}, {})

    assert upload_and_wait(client_of(server), UploadOptions(path), quiet())["status"] == "ready"

    assert server.asked == SENT


def test_a_resolution_and_urgency_are_asked_for_after_the_upload(path: Path) -> None:
    server = SlideServer({"status": "failed", "mpp": None}, {"status": "ready"})

    upload_and_wait(client_of(server), UploadOptions(path, mpp=0.25, urgent=True), quiet())

    assert server.encode_options == {"priority": "urgent", "mpp": 0.25}


def test_a_slide_that_fails_ends_with_its_own_error(path: Path) -> None:
    error = {"code": "missing_mpp", "detail": "The slide does not say its resolution; give mpp."}
    server = SlideServer({}, {"status": "failed", "error": error}, last_event="failed")

    with pytest.raises(CommandError, match="does not say its resolution") as caught:
        upload_and_wait(client_of(server), UploadOptions(path), quiet())

    assert caught.value.exit_code == ExitCode.FAILED
    assert caught.value.problem_code == "missing_mpp"


def test_for_scripts_it_prints_the_slide_and_nothing_else(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    upload(client_of(SlideServer({}, {"status": "ready"})), [UploadOptions(path)], as_json=True)

    printed = capsys.readouterr()
    assert json.loads(printed.out)["status"] == "ready"
    assert printed.err == ""


@pytest.mark.parametrize("name", ["missing.svs", ""])
def test_what_is_no_file_is_refused_before_anything_is_sent(tmp_path: Path, name: str) -> None:
    server = SlideServer({}, {})

    with pytest.raises(CommandError, match=r"not a file|holds no file") as caught:
        upload_and_wait(client_of(server), UploadOptions(tmp_path / name), quiet())

    assert caught.value.exit_code == ExitCode.USAGE
    assert server.asked == []


def test_features_that_say_nothing_of_the_slide_are_described_without_it(path: Path) -> None:
    unknown = {"status": "ready", "vendor": "features", "width": None, "height": None, "mpp": None}
    slide = upload_and_wait(client_of(SlideServer({}, {**unknown, "tile_count": None})), UploadOptions(path), quiet())

    assert describe_slide(slide, TILES).startswith("ready: slide.tiff, features, no tiles\n")
