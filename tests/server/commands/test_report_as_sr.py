"""`eyepiece report --format sr` against a server that is only a transport."""

import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.commands import report_as_sr
from server.commands.api_client import ApiClient
from server.commands.outcome import CommandError, ExitCode
from server.commands.report import ReportOptions, report

SLIDE, STUDY, SERIES = "a" * 64, "1.2.840.1", "1.2.840.2"
NEEDS_HIGHDICOM = pytest.mark.skipif(
    importlib.util.find_spec("highdicom") is None, reason="highdicom is not installed (make check-sr)"
)
# As GET /v1/slides/{id}/reports/{number} gives it.
REPORT: dict[str, Any] = {
    "object": "report",
    "id": "rep_" + "0c" * 16,
    "number": 3,
    "status": "preliminary",
    "title": "Draft report",
    "created_at": "2026-11-30T03:04:05.678Z",
    "request_id": None,
    "slide": {"id": SLIDE, "filename": "a.dcm", "study_uid": STUDY, "series_uid": SERIES, "metadata": {"stain": "HE"}},
    "model": {"name": "demo", "weights_digest": "ab" * 32, "encoder_id": "0123456789abcdef", "notice": "Research."},
    "sections": [{"heading": "Findings", "question": "What?", "answer": "Glands."}],
}
HEADER = {
    "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.77.1.6"]},
    "00080018": {"vr": "UI", "Value": ["1.2.840.3.1"]},
    "00100020": {"vr": "LO", "Value": ["P1"]},
    "0020000D": {"vr": "UI", "Value": [STUDY]},
    "0020000E": {"vr": "UI", "Value": [SERIES]},
}


class Server:
    """Has report 3 about a slide, and the headers of its one instance."""

    def __init__(self, series: str | None = SERIES, header: dict[str, Any] = HEADER) -> None:
        self.series, self.header = series, header
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.asked.append(f"{request.method} {path}")
        if path == f"/v1/slides/{SLIDE}":
            return httpx.Response(200, json={"id": SLIDE, "series_uid": self.series})
        if path == f"/v1/slides/{SLIDE}/reports/3":
            assert request.url.params["format"] == "json"
            return httpx.Response(200, json=REPORT)
        assert path == f"/v1/dicomweb/studies/{STUDY}/series/{SERIES}/metadata"
        return httpx.Response(200, text=json.dumps([self.header]))

    @property
    def client(self) -> ApiClient:
        return ApiClient("http://eyepiece.test", transport=httpx.MockTransport(self))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_as_sr, "find_spec", lambda name: object())


@NEEDS_HIGHDICOM
def test_a_kept_report_becomes_a_document_of_the_slides_study(tmp_path: Path) -> None:
    from pydicom import dcmread

    server = Server()

    report(server.client, ReportOptions(SLIDE, "sr", tmp_path / "r.dcm", number=3))

    read = dcmread(io.BytesIO((tmp_path / "r.dcm").read_bytes()))
    assert (read.Modality, read.StudyInstanceUID, read.PatientID) == ("SR", STUDY, "P1")
    assert read.PreliminaryFlag == "PRELIMINARY"
    assert not [it for it in server.asked if it.startswith("POST")]


@NEEDS_HIGHDICOM
def test_headers_that_do_not_do_lose_no_report(tmp_path: Path) -> None:
    without_uid = {tag: value for tag, value in HEADER.items() if tag != "00080018"}

    with pytest.raises(CommandError, match="report 3 is kept") as refused:
        report(Server(header=without_uid).client, ReportOptions(SLIDE, "sr", tmp_path / "r.dcm", number=3))

    assert refused.value.exit_code == ExitCode.FAILED
    assert not (tmp_path / "r.dcm").exists()


def test_a_slide_that_is_no_dicom_is_refused_before_a_model_is_asked(tmp_path: Path, installed: None) -> None:
    server = Server(series=None)

    with pytest.raises(CommandError, match="did not come as DICOM") as refused:
        report(server.client, ReportOptions(SLIDE, "sr", tmp_path / "r.dcm"))

    assert refused.value.exit_code == ExitCode.USAGE
    assert server.asked == [f"GET /v1/slides/{SLIDE}"]


def test_without_highdicom_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_as_sr, "find_spec", lambda name: None)
    server = Server()

    with pytest.raises(CommandError, match=r"pip install 'eyepiece\[sr\]'"):
        report(server.client, ReportOptions(SLIDE, "sr", tmp_path / "r.dcm"))

    assert server.asked == []


def test_a_document_goes_to_a_file() -> None:
    with pytest.raises(CommandError, match="goes to a file"):
        report(Server().client, ReportOptions(SLIDE, "sr"))
