"""`eyepiece evaluate ablations`: every question under a budget is asked while the slide is encoded within it."""

import json
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np
import pytest
from evaluation_fixtures import needs_language_data
from small_set import item, questions
from taken_uploads import TakenUploads

from evaluation.asking.reply_log import read_log
from evaluation.exam import Specimen
from evaluation.run_folder import RunFolder
from evaluation.scoring.ablated import encodes_of
from server.commands.api_client import ApiClient
from server.commands.eval_slides import rearrange_features
from server.commands.evaluate import AskOptions
from server.commands.evaluate_ablations import AblationOptions, compare_text_metrics, put_ablations
from server.commands.evaluate_slides import eyepiece_slides
from server.commands.outcome import CommandError

TILES = 300


class Server:
    """An Eyepiece whose answers say which tiles of a slide it sees, and whose embeddings are there when asked for."""

    def __init__(self) -> None:
        self.budgets: dict[str, dict[str, Any] | None] = {}
        self._taken = TakenUploads(self._take)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "demo", "title": "Demo", "kind": "tiles"}]})
        if path.endswith("/questions"):
            slide = path.split("/")[3]
            return httpx.Response(200, json={"answer": f"{slide} {json.dumps(self.budgets.get(slide))}"})
        if path.endswith("/encode"):
            slide, body = path.split("/")[3], json.loads(request.content)
            budget = body.get("tile_budget")
            if budget is not None:
                self.budgets[slide] = None if budget == "all" else budget
            return httpx.Response(202, json=self._slide(slide))
        if path.endswith("/features"):
            return httpx.Response(200, content=_features())
        if (taken := self._taken.answer(request)) is not None:
            return taken
        return httpx.Response(200, json=self._slide(path.removeprefix("/v1/slides/")))

    def _take(self, name: str, content: bytes) -> str:
        return name

    def _slide(self, name: str) -> dict[str, Any]:
        budget = self.budgets.get(name)
        warnings = [{"code": "tile_budget", "detail": "In part."}] if budget else []
        encodings = [{"model": "demo", "status": "ready", "encoder_id": f"e{json.dumps(budget)}"}]
        tiles = min(TILES, budget["tiles"]) if budget else TILES
        about = {"id": name, "status": "ready", "mpp": 0.5, "error": None, "warnings": warnings}
        return {**about, "tile_count": tiles, "encodings": encodings}


def _features() -> bytes:
    import io

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["features"], file["coords"] = np.arange(12.0).reshape(4, 3), np.zeros((4, 2), np.int64)
    return buffer.getvalue()


@pytest.fixture
def options(tmp_path: Path) -> AblationOptions:
    (tmp_path / "slides").mkdir()
    for number in range(2):
        (tmp_path / "slides" / f"s{number}.svs").write_bytes(b"slide")
    asked = AskOptions(tmp_path, tmp_path / "run", "ablated", eyepiece="http://x.test", slides=tmp_path / "slides")
    return AblationOptions(asked, budgets=(100, 1_000), draws=1)


def put(server: Server, options: AblationOptions) -> RunFolder:
    folder, transport = RunFolder(options.asked.out), httpx.MockTransport(server)
    client = ApiClient("http://x.test", transport=transport)
    put_ablations(client, questions(item(0), item(1)), folder, options, transport)
    return folder


def test_every_answer_is_of_the_tiles_that_its_condition_names(options: AblationOptions) -> None:
    server = Server()

    folder = put(server, options)

    log = read_log(folder.answers_path("ablated")).values()
    by_condition: dict[str, set[str]] = {}
    for line in log:
        by_condition.setdefault(line["condition"], set()).add(line["text"])
    assert by_condition["as is"] == {"s0.svs null", "s1.svs null"}
    assert by_condition["100 tiles"] == {f's{n}.svs {{"tiles": 100, "choice": "uniform", "seed": 0}}' for n in range(2)}
    assert by_condition["1,000 tiles, draw 1"] == {
        f's{n}.svs {{"tiles": 1000, "choice": "random", "seed": 1}}' for n in range(2)
    }
    assert all(text.startswith("made-") for text in by_condition["tiles shuffled"] | by_condition["blank slide"])
    assert set(server.budgets.values()) == {None}  # of all tiles again
    (target,) = folder.targets()
    made = encodes_of(folder, target)
    assert (made["100 tiles"]["slides_with_fewer_tiles"], made["100 tiles"]["median_tiles"]) == (0, 100)
    assert (made["1,000 tiles"]["slides_with_fewer_tiles"], made["1,000 tiles"]["median_tiles"]) == (2, TILES)
    # Embeddings that were there took no time that could be told.
    assert made["100 tiles"]["median_encode_s"] is None


def test_a_budget_that_a_killed_run_left_is_lifted_before_as_is(options: AblationOptions) -> None:
    server = Server()
    server.budgets["s0.svs"] = {"tiles": 5, "choice": "uniform", "seed": 0}

    folder = put(server, options)

    answers = {
        line["text"] for line in read_log(folder.answers_path("ablated")).values() if line["condition"] == "as is"
    }
    assert answers == {"s0.svs null", "s1.svs null"}


def test_a_slide_within_a_budget_is_not_asked_about_as_if_it_were_whole(options: AblationOptions) -> None:
    from evaluation.asking.conditions import AS_IS, plan_asks

    server = Server()
    server.budgets["s0.svs"] = {"tiles": 5, "choice": "uniform", "seed": 0}
    assert options.asked.slides is not None
    client = ApiClient("http://x.test", transport=httpx.MockTransport(server))

    with pytest.raises(CommandError, match="s0 is encoded within a tile budget"):
        eyepiece_slides(
            client, plan_asks(questions(item(0)), [AS_IS]).asks, {"s0": options.asked.slides / "s0.svs"}, None
        )


def test_regions_are_shuffled_with_all_that_is_theirs(tmp_path: Path) -> None:
    path = tmp_path / "levels.h5"
    with h5py.File(path, "w") as file:
        for name, width in (("regions/features", 2), ("patches/features", 3), ("cells/features", 4)):
            file[name] = np.repeat(np.arange(30.0, dtype=np.float32)[:, None], width, axis=1)
        file["patches/index"] = np.arange(30, dtype=np.uint8)[:, None]
        file["slide/features"] = np.ones(2, np.float32)
        file["regions/coords"] = np.arange(60, dtype=np.int32).reshape(30, 2)
        file["cells/found/kind"] = np.zeros(3, np.uint8)

    rearrange_features(path, Specimen(5, "shuffled"))

    with h5py.File(path) as file:
        order = file["regions/features"][:, 0]
        assert sorted(order) == list(range(30))
        assert list(order) != list(range(30))
        assert all(
            (file[name][:, 0] == order).all() for name in ("patches/index", "patches/features", "cells/features")
        )
        assert (file["regions/coords"][()] == np.arange(60).reshape(30, 2)).all()
        assert "cells/found" not in file


def test_the_table_of_text_metrics_is_kept_in_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs_language_data()

    compare_text_metrics(RunFolder(tmp_path), ["wsi_llava"])

    kept = json.loads((tmp_path / "ablations" / "metrics.json").read_text())
    assert kept["rows"][0][0] == "BLEU-4 (wsi_llava)"
    assert "BLEU-1 (wsi_llava)" in capsys.readouterr().out
