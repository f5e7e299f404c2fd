"""A slide named by its id, the beginning of it, or its file name, as a person would."""

import hashlib
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.commands.api_client import ApiClient
from server.commands.find_slide import find_slide, find_slide_id
from server.commands.outcome import CommandError, ExitCode


def slide(beginning: str, filename: str) -> dict[str, Any]:
    return {
        "id": beginning.ljust(64, "0"),
        "filename": filename,
        "status": "ready",
        "size_bytes": 5,
        "created_at": "2026-11-29T10:00:00Z",
    }


SLIDES = [
    slide("abcdef1", "case101.svs"),
    slide("abcdef2", "Case101.SVS"),
    slide("123456a", "biopsy 7.svs"),
    slide("fedcba9", "facade"),
    slide("7777777", "biopsy 7.svs.bak"),
    slide("decade1", "another.svs"),
    slide("8888888", "decade.svs"),
    slide(sha256(b"right").hexdigest(), "at hand.svs"),
]


class Server:
    """Lists slides by the beginning of an id or a part of a name, two a page, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        query = request.url.params
        self.asked.append(f"{request.url.path.removeprefix('/v1')}?{query}")
        if request.url.path != "/v1/slides":
            named = [it for it in SLIDES if it["id"] == request.url.path.rpartition("/")[2]]
            gone = {"code": "not_found", "detail": "There is no such slide.", "status": 404}
            return httpx.Response(200, json=named[0]) if named else httpx.Response(404, json=gone)
        if "id" in query:
            found = [it for it in SLIDES if it["id"].startswith(query["id"])]
            return httpx.Response(200, json={"data": found, "next_cursor": None, "complete": True})
        found = [it for it in SLIDES if query["name"].casefold() in it["filename"].casefold()]
        begin = int(query.get("cursor", "0"))
        cursor = str(begin + 1) if begin + 1 < len(found) else None
        return httpx.Response(200, json={"data": found[begin : begin + 1], "next_cursor": cursor, "complete": True})


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def client(server: Server) -> ApiClient:
    return ApiClient("http://eyepiece.test", transport=httpx.MockTransport(server))


def test_a_whole_id_is_not_asked_for(client: ApiClient, server: Server) -> None:
    assert find_slide_id(client, "5e" * 32) == "5e" * 32
    assert server.asked == []


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("abcdef1", 0),
        ("ABCDEF2", 1),
        ("123456", 2),
        ("biopsy 7.svs", 2),
        ("BIOPSY 7", 2),
        ("elsewhere/biopsy 7.svs", 2),
        ("facade", 3),  # six digits, and the name of a slide
    ],
)
def test_what_means_one_slide_finds_it(client: ApiClient, said: str, number: int) -> None:
    assert find_slide(client, said) == SLIDES[number]


@pytest.mark.parametrize(("said", "how_many"), [("abcdef", 2), ("case101.svs", 2), ("case101", 2)])
def test_what_can_mean_several_lists_them(client: ApiClient, said: str, how_many: int) -> None:
    with pytest.raises(CommandError) as caught:
        find_slide(client, said)

    assert caught.value.exit_code == ExitCode.USAGE
    first, *listed = str(caught.value).split("\n")
    assert first == f"{said!r} can be {how_many} slides; name one by its id:"
    assert [line.split()[0] for line in listed] == ["abcdef100000", "abcdef200000"]


def test_the_beginning_of_an_id_that_is_another_slides_name_is_not_guessed(client: ApiClient) -> None:
    with pytest.raises(CommandError, match="'decade' can be 2 slides"):
        find_slide(client, "decade")


@pytest.mark.parametrize("said", ["abcde", "biopsy", "nothing.svs", "000000", "/", ""])
def test_what_means_no_slide_says_how_to_find_one(client: ApiClient, said: str) -> None:
    with pytest.raises(CommandError, match="`eyepiece slides list` shows") as caught:
        find_slide_id(client, said)

    assert caught.value.exit_code == ExitCode.REFUSED


def test_a_file_here_that_is_another_one_than_the_slide_there_is_refused(client: ApiClient, tmp_path: Path) -> None:
    path = tmp_path / "at hand.svs"
    for content in (b"longer", b"wrong"):  # as long as the right one, and it
        path.write_bytes(content)
        with pytest.raises(CommandError, match="has other content"):
            find_slide(client, str(path))
    path.write_bytes(b"right")
    assert find_slide(client, str(path)) == SLIDES[-1]


def test_a_folder_here_or_any_file_of_its_series_is_the_slide_that_is_made_of_them(
    client: ApiClient, tmp_path: Path
) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    for name in ("a.dcm", "b.dcm"):
        (folder / name).write_bytes(name.encode())
    with pytest.raises(CommandError, match="has the content of"):
        find_slide(client, str(folder))

    rows = "".join(f"{name}\t5\t{sha256(name.encode()).hexdigest()}\n" for name in ("a.dcm", "b.dcm"))
    SLIDES.append(slide(sha256(rows.encode()).hexdigest(), "a.dcm"))
    try:
        assert find_slide(client, str(folder)) == SLIDES[-1]
        assert find_slide(client, str(folder / "a.dcm")) == SLIDES[-1]
        assert find_slide(client, str(folder / "b.dcm")) == SLIDES[-1]
        (folder / "b.dcm").write_bytes(b"other")
        with pytest.raises(CommandError, match="has other content"):
            find_slide(client, str(folder / "a.dcm"))
    finally:
        SLIDES.pop()


def test_of_slides_of_one_name_the_file_here_is_meant(client: ApiClient, tmp_path: Path) -> None:
    path = tmp_path / "case101.svs"
    path.write_bytes(b"right")
    with pytest.raises(CommandError, match="can be 2 slides"):
        find_slide(client, str(path))

    own = {"id": hashlib.sha256(b"right").hexdigest()}
    SLIDES.append(slide("1", "case101.svs") | own)
    try:
        assert find_slide(client, str(path))["id"] == own["id"]
    finally:
        SLIDES.pop()
