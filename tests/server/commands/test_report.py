"""`eyepiece report` against a server that is only a transport."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.commands.api_client import ApiClient
from server.commands.outcome import CommandError, ExitCode
from server.commands.report import ReportOptions, report

SLIDE = "a" * 64
SECTION = {"section": 1, "heading": "Findings", "answer": "None.\x1b[2J"}


class Server:
    """Writes report 7, or breaks off, and has it in every form."""

    def __init__(self, last: tuple[str, dict[str, Any]] = ("done", {"number": 7})) -> None:
        self.events = [("report", {"notice": "Research use only."}), ("section", SECTION), last]
        self.bodies: list[Any] = []
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.raw_path.decode().replace(SLIDE, 'ID')}")
        if request.method == "POST":
            self.bodies.append(json.loads(request.content))
            text = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in self.events)
            return httpx.Response(200, text=text)
        return httpx.Response(200, content=f"in {request.url.params['format']}\n".encode())

    @property
    def client(self) -> ApiClient:
        return ApiClient("http://eyepiece.test", transport=httpx.MockTransport(self))


def test_a_report_is_shown_while_it_is_written_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server()

    report(server.client, ReportOptions(SLIDE))

    shown = capsys.readouterr()
    assert shown.err == "Research use only.\n1. Findings: None.[2J\n"
    assert shown.out == "in text\n"
    assert server.asked == ["POST /v1/slides/ID/reports", "GET /v1/slides/ID/reports/7?format=text"]
    assert server.bodies == [{"stream": True}]


def test_a_template_is_sent_and_the_report_goes_to_a_new_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = tmp_path / "t.json"
    template.write_text('{"title": "T", "sections": [{"heading": "A", "question": "B?"}]}')
    server, out = Server(), tmp_path / "report.pdf"

    report(server.client, ReportOptions(SLIDE, "pdf", out, template, "demo"))

    assert out.read_bytes() == b"in pdf\n"
    assert f"report 7 of slide aaaaaaaaaaaa: {out}" in capsys.readouterr().out
    assert server.bodies[0] == json.loads(template.read_text()) | {"model": "demo", "stream": True}


def test_one_that_is_kept_is_taken_without_asking_a_model() -> None:
    server = Server()

    report(server.client, ReportOptions(SLIDE, "fhir", number=3))

    assert server.asked == ["GET /v1/slides/ID/reports/3?format=fhir"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"form": "docx"}, "--format is one of"),
        ({"form": "pdf"}, "goes to a file"),
        ({"out": "exists"}, "exists already"),
        ({"template": "exists"}, "cannot be read as JSON"),
        ({"template": "list"}, "must be a JSON object"),
        ({"template": "missing"}, "cannot be read as JSON"),
        ({"number": 3, "model": "demo"}, "leave --template and --model out"),
    ],
)
def test_what_makes_no_sense_is_refused_before_a_model_is_asked(
    tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    (tmp_path / "exists").write_text("no JSON")
    (tmp_path / "list").write_text("[]")
    paths = {name: tmp_path / it for name, it in options.items() if name in ("out", "template")}
    server = Server()

    with pytest.raises(CommandError, match=sentence) as refused:
        report(server.client, ReportOptions(SLIDE, **(options | paths)))

    assert refused.value.exit_code == ExitCode.USAGE
    assert server.asked == []


def test_a_report_that_breaks_off_is_none(tmp_path: Path) -> None:
    error = {"code": "language_model_failed", "detail": "It broke off."}

    with pytest.raises(CommandError, match=r"It broke off\. No report was kept\.") as refused:
        report(Server(("error", error)).client, ReportOptions(SLIDE, out=tmp_path / "r.txt"))

    assert (refused.value.exit_code, refused.value.problem_code) == (ExitCode.FAILED, "language_model_failed")
    assert not (tmp_path / "r.txt").exists()


def test_a_file_that_cannot_be_written_does_not_lose_the_report(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"report 7 is kept: say --number 7"):
        report(Server().client, ReportOptions(SLIDE, out=tmp_path / "missing" / "r.txt"))
