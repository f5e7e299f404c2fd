"""The examination through HTTP, against a server that is only a transport: it knows slides by their files' names."""

import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np
import pytest
from rich.console import Console
from simulated_answers import seeing
from taken_uploads import TakenUploads

from encoders.precomputed.check_features import check_filled
from evaluation.exam import (
    ANOTHER_SLIDE,
    FOLLOW_UP,
    SHUFFLED,
    Dialogue,
    ExamSize,
    Specimen,
    plan_exam,
    specimens_of,
)
from evaluation.judge import Asked
from evaluation.score import chance_agreement, score
from server.commands.api_client import ApiClient
from server.commands.eval_demo import ask_dialogue, hold_exam
from server.commands.eval_slides import draw, rearrange_features
from server.commands.outcome import CommandError, ExitCode

SIZE = ExamSize(slides=2, unseen=1, follow_up=1, another=2, shuffled=1, blind=1, finer=1, restained=1)
PLAN = plan_exam(SIZE, first_seed=11)
COORDS = np.array([[0, 0], [512, 0], [0, 512], [512, 512]])
FEATURES = np.arange(12, dtype=np.float32).reshape(4, 3)


def features_file() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["features"], file["coords"] = FEATURES, COORDS
    return buffer.getvalue()


class ExaminedServer:
    """Answers by `answer`; a slide's id is the name that it was uploaded under."""

    def __init__(self, answer: Callable[[Asked], str]) -> None:
        self.uploads: dict[str, bytes] = {}
        self._taken = TakenUploads(self._take)
        self.conversations: dict[str, list[str]] = {}
        self.answers = {
            (file_stem(dialogue.specimen), asked.question.text): answer(asked)
            for dialogue in PLAN
            for asked in dialogue.asked()
        }

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if (taken := self._taken.answer(request)) is not None:
            return taken
        *_, slide_id, action = ["", *request.url.path.split("/")]
        if action == "features":
            return httpx.Response(200, content=features_file())
        if action == "questions":
            return self._answer(slide_id, json.loads(request.content))
        if action == "events":
            return httpx.Response(200, text="event: ready\ndata: {}\n\n")
        return httpx.Response(200, json=slide(action, "ready"))

    def _take(self, name: str, content: bytes) -> str:
        slide_id, ending = name.split(".")
        assert ending in ("svs", "h5")
        assert slide_id not in self.uploads
        self.uploads[slide_id] = content
        return slide_id

    def _answer(self, slide_id: str, options: dict[str, Any]) -> httpx.Response:
        assert slide_id in self.uploads
        conversation_id = options.get("conversation_id", f"conv_{len(self.conversations)}")
        self.conversations.setdefault(conversation_id, []).append(options["question"])
        text = self.answers[slide_id, options["question"]]
        return httpx.Response(200, json={"answer": text, "conversation_id": conversation_id})


def slide(slide_id: str, status: str) -> dict[str, Any]:
    return {"id": slide_id, "status": status, "mpp": 0.5, "error": None}


def file_stem(specimen: Specimen) -> str:
    return f"{specimen.seed}-{specimen.variant}"


def client_of(server: Callable[[httpx.Request], httpx.Response]) -> ApiClient:
    return ApiClient("http://eyepiece.test", transport=httpx.MockTransport(server))


@pytest.fixture
def quiet() -> Console:
    return Console(quiet=True)


@pytest.fixture
def nothing_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files with nothing in them: who answers here looks at none. The short examination draws and reads them all."""
    monkeypatch.setattr(
        "server.commands.eval_slides.ProcessPoolExecutor", lambda workers, _: ThreadPoolExecutor(workers)
    )
    monkeypatch.setattr("server.commands.eval_slides.draw", lambda path, _: path.write_bytes(b"nothing"))


@pytest.mark.usefixtures("nothing_drawn")
def test_every_question_reaches_the_slide_that_it_is_meant_for(quiet: Console) -> None:
    server = ExaminedServer(seeing)

    judgements = hold_exam(client_of(server), PLAN, quiet)

    assert set(server.uploads) == {file_stem(specimen) for specimen in specimens_of(PLAN)}
    elsewhere = [j for j in judgements if j.asked.condition == ANOTHER_SLIDE]
    assert score(elsewhere).share == pytest.approx(chance_agreement(elsewhere), abs=0.1)
    assert chance_agreement(elsewhere) < 0.7
    others = [j for j in judgements if j.asked.condition not in (ANOTHER_SLIDE, SHUFFLED)]
    assert len(others) > 150
    assert score(others).share == 1
    asked = sorted(question for turns in server.conversations.values() for question in turns)
    assert asked == sorted(question.text for dialogue in PLAN for question in dialogue.questions)
    with h5py.File(io.BytesIO(server.uploads["11-shuffled"])) as file:
        assert sorted(map(tuple, file["features"][()])) == sorted(map(tuple, FEATURES))
        assert (file["features"][()] != FEATURES).any()
        assert (file["coords"][()] == COORDS).all()


def test_a_follow_up_goes_on_with_its_conversation_and_the_first_turn_is_not_scored() -> None:
    server = ExaminedServer(seeing)
    dialogue = next(dialogue for dialogue in PLAN if dialogue.condition == FOLLOW_UP)
    server.uploads[file_stem(dialogue.specimen)] = b""

    judgements = ask_dialogue(client_of(server), file_stem(dialogue.specimen), dialogue)

    assert list(server.conversations.values()) == [[question.text for question in dialogue.questions]]
    assert {judgement.asked.turn for judgement in judgements} == {2, 3, 4}


@pytest.mark.usefixtures("nothing_drawn")
def test_a_refused_question_ends_the_examination(quiet: Console) -> None:
    class Refusing(ExaminedServer):
        def _answer(self, slide_id: str, options: dict[str, Any]) -> httpx.Response:
            return httpx.Response(429, json={"detail": "Too busy.", "code": "overloaded"})

    with pytest.raises(CommandError, match="Too busy") as caught:
        hold_exam(client_of(Refusing(seeing)), plan_of_one_slide(), quiet)

    assert caught.value.exit_code == ExitCode.REFUSED


@pytest.mark.usefixtures("nothing_drawn")
def test_a_language_model_that_is_away_for_a_moment_is_waited_for(quiet: Console) -> None:
    class AwayAtFirst(ExaminedServer):
        asked = 0

        def _answer(self, slide_id: str, options: dict[str, Any]) -> httpx.Response:
            self.asked += 1
            if self.asked % 3 == 1:
                problem = {"detail": "The language model starts.", "code": "language_model_unavailable"}
                return httpx.Response(503, json=problem, headers={"Retry-After": "0"})
            return super()._answer(slide_id, options)

    judgements = hold_exam(client_of(AwayAtFirst(seeing)), PLAN, quiet)

    assert score([j for j in judgements if j.asked.condition not in (ANOTHER_SLIDE, SHUFFLED)]).share == 1


def test_a_blank_slide_keeps_its_tiles_and_nothing_in_them(tmp_path: Path) -> None:
    blanks = []
    for seed, sign in ((11, 1), (12, -1)):
        path = tmp_path / f"{seed}.h5"
        path.write_bytes(features_file())
        with h5py.File(path, "r+") as file:
            file["features"][...] *= sign
        rearrange_features(path, Specimen(seed, "blank"))
        with h5py.File(path) as file:
            blanks.append(file["features"][()])
            assert (file["coords"][()] == COORDS).all()

    assert (blanks[0] == blanks[1]).all()  # nothing of the slide is left
    assert np.abs(blanks[0]).max() < 0.1
    check_filled(blanks[0].astype(np.float32))  # a server takes it


def test_variants_are_drawn_with_another_resolution_or_stain(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[dict[str, Any]] = []
    monkeypatch.setattr("server.commands.eval_slides.write_synthetic_slide", lambda _, **how: drawn.append(how))

    for variant in ("drawn", "finer", "restained"):
        draw(Path("slide.svs"), Specimen(11, variant))

    assert [how["seed"] for how in drawn] == [11, 11, 11]
    assert [how["mpp"] for how in drawn] == [0.5, 0.25, 0.5]
    assert [how["stain_seed"] in (None, 11) for how in drawn] == [True, True, False]


def plan_of_one_slide() -> list[Dialogue]:
    return [dialogue for dialogue in PLAN if dialogue.specimen == Specimen(11)]
