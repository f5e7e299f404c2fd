"""`eyepiece cohort run` against a server that is played: one table, nothing dropped, nothing asked twice."""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from played_server import played_server
from taken_uploads import TakenUploads

from server.commands.cohort import CohortOptions, run_cohort
from server.commands.outcome import CommandError, ExitCode

OLD_ID, FAILING = "5e" * 32, "bad.svs"


class Server:
    """Has one slide from earlier, takes files, and answers with the slide's id and the question."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.refuse: str | None = None
        self._taken = TakenUploads(lambda name, content: f"{name}-id")

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "demo"}, {"id": "other"}]})
        if (taken := self._taken.answer(request)) is not None:
            return taken
        slide_id = path.split("/")[3]
        if path.endswith("/questions"):
            return self._answer(slide_id, json.loads(request.content))
        status, error = ("ready", None)
        if slide_id == f"{FAILING}-id":
            status, error = "failed", {"code": "unreadable_slide", "detail": "No slide."}
        encodings = [{"model": "demo", "status": status, "encoder_id": "e1"}]
        slide = {"id": slide_id, "status": status, "mpp": 0.5, "error": error, "encodings": encodings}
        return httpx.Response(200, json=slide)

    def _answer(self, slide_id: str, body: dict[str, object]) -> httpx.Response:
        question = str(body["question"])
        assert body["model"] == "demo"
        if question == self.refuse:
            return httpx.Response(400, json={"code": "invalid_request"})
        self.asked[f"{slide_id} {question}"] += 1
        warnings = [{"code": "unlike_training"}, {"code": "region"}]
        about: dict[str, object] = {"conversation_id": "conv_1", "turn": 1, "warnings": warnings, "choices": []}
        if body.get("choices"):
            assert body["choices"] == ["Yes", "No"]
            shares = [{"text": "Yes", "probability": 0.25}, {"text": "No", "probability": 0.75}]
            return httpx.Response(200, json={**about, "answer": "No", "choices": shares})
        return httpx.Response(200, json={"answer": f"=SUM({slide_id[:4]}) {question}", **about})


@pytest.fixture
def server() -> Iterator[tuple[Server, str]]:
    played = Server()
    with played_server(played) as url:
        yield played, url


def cohort(folder: Path, url: str) -> CohortOptions:
    (folder / "a.svs").write_bytes(b"a")
    (folder / FAILING).write_bytes(b"b")
    slides = folder / "slides.csv"
    slides.write_text(f"slide,path,id,arm\nA,a.svs,,=treated\nB,{FAILING},,\nC,,{OLD_ID},control\n")
    questions = folder / "questions.csv"
    questions.write_text("key,question,choices\ngrade,Which grade?,\nnecrosis,Is there necrosis?,Yes | No\n")
    return CohortOptions(slides, questions, folder / "out", url, at_once=3)


def rows(options: CohortOptions) -> dict[tuple[str, str], dict[str, str]]:
    with (options.out / "answers.csv").open(newline="") as table:
        return {(row["slide"], row["question_key"]): row for row in csv.DictReader(table)}


def test_every_question_about_every_slide_is_a_row_with_its_doubts_and_its_page(
    server: tuple[Server, str], tmp_path: Path
) -> None:
    played, url = server
    options = cohort(tmp_path, url)

    with pytest.raises(CommandError, match="asks for them again") as ended:
        run_cohort(options)

    assert ended.value.exit_code == ExitCode.FAILED
    found = rows(options)
    assert list(found) == [(slide, key) for slide in "ABC" for key in ("grade", "necrosis")]
    row = found["C", "grade"]
    assert (row["answer"], row["reason"], row["warnings"]) == ("'=SUM(5e5e) Which grade?", "", "unlike_training region")
    assert (row["conversation_id"], row["turn"], row["encoder_id"]) == ("conv_1", "1", "e1")
    assert (row["probability"], row["probabilities"]) == ("", "")
    closed = found["C", "necrosis"]
    assert (closed["answer"], closed["probability"], closed["probabilities"]) == (
        "No",
        "0.7500",
        "Yes: 0.2500 | No: 0.7500",
    )
    assert row["page"] == f"{url}/#{OLD_ID}"
    assert (row["arm"], found["A", "grade"]["arm"]) == ("control", "'=treated")
    assert (found["B", "grade"]["answer"], found["B", "grade"]["reason"]) == ("", "unreadable_slide")
    assert set(played.asked.values()) == {1}


def test_what_has_an_answer_is_not_asked_again_and_what_has_none_is(server: tuple[Server, str], tmp_path: Path) -> None:
    played, url = server
    options = cohort(tmp_path, url)
    played.refuse = "Which grade?"
    with pytest.raises(CommandError):
        run_cohort(options)
    before = rows(options)
    played.refuse = None

    with pytest.raises(CommandError):
        run_cohort(options)

    assert before["A", "grade"]["reason"] == "refused"
    assert rows(options)["A", "grade"]["answer"].endswith("Which grade?")
    assert set(played.asked.values()) == {1}


def test_a_server_that_is_not_there_and_a_model_that_it_lacks(server: tuple[Server, str], tmp_path: Path) -> None:
    options = cohort(tmp_path, "http://127.0.0.1:1")
    with pytest.raises(CommandError) as away:
        run_cohort(options)
    with pytest.raises(CommandError, match="no model third; it has demo, other"):
        run_cohort(CohortOptions(options.slides, options.questions, options.out, server[1], model="third"))

    assert away.value.exit_code == ExitCode.UNREACHABLE
