"""`eyepiece evaluate`: what is refused before anything is asked, predictions, slides by name, an Eyepiece as target."""

import json
from pathlib import Path
from typing import Any

import cv2
import h5py
import httpx
import numpy as np
import pytest
from evaluation_fixtures import FIXTURES
from small_set import item, questions
from taken_uploads import TakenUploads

from evaluation.asking.conditions import AS_IS, BLANK, WRONG, Shown, plan_asks
from evaluation.asking.reply_log import read_log
from evaluation.errors import UnreadableSet
from evaluation.run_folder import RunFolder
from server.commands.api_client import ApiClient
from server.commands.evaluate import AskOptions, ask, retrieval
from server.commands.evaluate_slides import MOSAIC_PATCHES, as_jpeg, eyepiece_slides, mosaic_patches, slide_paths
from server.commands.outcome import CommandError, ExitCode


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "q.jsonl"
    rows = [
        {"id": f"set/{n}", "slide": f"s{n}.svs", "question": "Is it?", "answer": "Yes", "patient": f"p{n}"}
        for n in range(4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "one of --eyepiece, --endpoint and --predictions"),
        ({"endpoint": "http://x/v1", "eyepiece": "http://y"}, "one of --eyepiece"),
        ({"endpoint": "http://x/v1"}, "--model"),
        ({"endpoint": "http://x/v1", "model": "m", "conditions": ("as is", "blind")}, "No condition is called `blind`"),
        ({"endpoint": "http://x/v1", "model": "m"}, "--slides"),
        ({"endpoint": "http://x/v1", "model": "m", "layout": "xml"}, "No layout is called xml"),
        ({"endpoint": "http://x/v1", "model": "m", "view": "none", "name": "a/b"}, "A name is of letters"),
    ],
)
def test_what_cannot_be_asked_is_refused(plain: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    options = {"questions": plain, "out": tmp_path / "run", "name": "x", **changes}

    with pytest.raises(CommandError, match=said) as refused:
        ask(AskOptions(**options))

    assert refused.value.exit_code == ExitCode.USAGE


def test_predictions_are_taken_and_what_is_odd_is_said(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = tmp_path / "p.jsonl"
    answers.write_text(
        '{"question_id": "0", "answer": "Yes"}\n{"question_id": "set/1", "answer": ""}\n{"question_id": "9"}\n{\n'
    )

    ask(AskOptions(plain, tmp_path / "run", "theirs", predictions=answers))

    log = read_log(RunFolder(tmp_path / "run").answers_path("theirs"))
    assert {line["item"]: (line["text"], line["reason"]) for line in log.values()} == {
        "set/0": ("Yes", None),
        "set/1": (None, "no_prediction"),
        "set/2": (None, "no_prediction"),
        "set/3": (None, "no_prediction"),
    }
    said = capsys.readouterr().out
    assert "not json 1" in said
    assert "of no question 1" in said
    assert "questions without prediction 3" in said


def test_a_folder_holds_one_set(plain: Path, tmp_path: Path) -> None:
    ask(AskOptions(plain, tmp_path / "run", "theirs", predictions=FIXTURES / "nlu_corpus.jsonl"))
    plain.write_text(plain.read_text().replace("Is it?", "Is it not?"))

    with pytest.raises(CommandError, match="other questions"):
        ask(AskOptions(plain, tmp_path / "run", "theirs", predictions=FIXTURES / "nlu_corpus.jsonl"))


def test_slides_are_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "TCGA-AA-0001.x.svs").touch()
    (tmp_path / "b.h5").touch()

    assert slide_paths(tmp_path, ["TCGA-AA-0001.x", "b"]) == {
        "TCGA-AA-0001.x": tmp_path / "deep" / "TCGA-AA-0001.x.svs",
        "b": tmp_path / "b.h5",
    }
    with pytest.raises(UnreadableSet, match="1 slides have no file, the first of them c"):
        slide_paths(tmp_path, ["b", "c"])
    (tmp_path / "b.svs").touch()
    with pytest.raises(UnreadableSet, match="several files"):
        slide_paths(tmp_path, ["b"])
    table = tmp_path / "map.csv"
    table.write_text("slide,path\ncase,b.svs\n")
    assert slide_paths(table, ["case"]) == {"case": tmp_path / "b.svs"}


class Server:
    """Knows slides by the names of their files, and keeps what was uploaded."""

    def __init__(self) -> None:
        self.uploads: dict[str, bytes] = {}
        self._taken = TakenUploads(self._take)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "demo", "title": "Demo", "kind": "tiles"}]})
        if (taken := self._taken.answer(request)) is not None:
            return taken
        if path.endswith("/features"):
            return httpx.Response(200, content=self.features())
        return httpx.Response(200, json=self._slide(path.removeprefix("/v1/slides/")))

    def _take(self, name: str, content: bytes) -> str:
        self.uploads[name] = content
        return name

    def _slide(self, name: str) -> dict[str, Any]:
        encodings = [{"model": "demo", "status": "ready", "encoder_id": "e1"}]
        return {"id": name, "status": "ready", "mpp": 0.5, "error": None, "warnings": [], "encodings": encodings}

    def features(self) -> bytes:
        import io

        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            file["features"], file["coords"] = np.ones((4, 3), np.float32), np.zeros((4, 2), np.int64)
        return buffer.getvalue()


def test_an_eyepiece_is_given_all_that_is_shown_and_a_blank_slide(tmp_path: Path) -> None:
    server = Server()
    paths = {f"s{n}": tmp_path / f"s{n}.svs" for n in range(2)}
    for path in paths.values():
        path.write_bytes(b"slide")
    asks = plan_asks(questions(item(0), item(1)), [AS_IS, BLANK, WRONG]).asks

    client = ApiClient("http://eyepiece.test", transport=httpx.MockTransport(server))
    ids, model = eyepiece_slides(client, asks, paths, None)

    assert set(ids) == {Shown("slide", "s0"), Shown("slide", "s1"), Shown("blank", "s0")}
    assert (model["id"], model["encoder_ids"]) == ("demo", ["e1"])
    (blank,) = [content for name, content in server.uploads.items() if name.endswith(".h5")]
    (tmp_path / "blank.h5").write_bytes(blank)
    with h5py.File(tmp_path / "blank.h5") as file:
        assert np.abs(file["features"][()]).max() < 0.1


def test_a_model_that_the_server_lacks_is_refused(tmp_path: Path) -> None:
    client = ApiClient("http://eyepiece.test", transport=httpx.MockTransport(Server()))

    with pytest.raises(CommandError, match="no model other; it has demo"):
        eyepiece_slides(client, [], {}, "other")


def test_a_mosaic_is_of_the_patches_with_most_tissue() -> None:
    whole = np.full((2048, 2048, 3), 240, np.uint8)
    whole[1024:1536, 512:1024] = (200, 60, 140)

    patches = mosaic_patches(whole)

    assert len(patches) == MOSAIC_PATCHES
    assert sum(bool((patch == (200, 60, 140)).all()) for patch in patches) == 1
    decoded = cv2.imdecode(np.frombuffer(as_jpeg(whole), np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == whole.shape
    assert decoded[1200, 700, 2] > 180  # red stays red


def test_similarities_give_recall_in_both_directions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "s.npy", np.eye(3))

    retrieval(tmp_path / "s.npy")

    assert json.loads(capsys.readouterr().out)["report_to_slide"]["Recall@1"] == 1.0
    (tmp_path / "s.json").write_text("[[1, 2]]")
    with pytest.raises(CommandError, match="no square"):
        retrieval(tmp_path / "s.json")
