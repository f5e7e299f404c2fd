"""Every slide of `../shared/cases`, where they are, through HTTP and through `eyepiece inspect`: right, and alike.

The upload, its look inside, the worker's job and its reader are real; tiles are planned and counted, not encoded. What
the pixels are is for `tests/encoders/tiling`, which draws the same kinds.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_parts import encode_job, problem_of
from fakes import FakeEncode, sample_embedding

from encoders.caller import Caller
from encoders.precomputed.features_kind import features_kind
from encoders.precomputed.features_process import read_given_features
from encoders.tiling.isolation.reader_process import ReaderLimits, ReaderProcess
from encoders.types import SlideEmbedding, SlideFile
from model_store.installed import InstalledModel, open_model
from model_store.manifest import packaged_manifest
from model_store.packaged_models import PACKAGED
from server.api.parts import Parts
from server.commands.inspect import InspectOptions, inspect
from server.commands.outcome import CommandError
from server.encoding.encode_worker import WorkerQueue
from server.settings import Settings

CASES = Path(__file__).parents[3] / "shared/cases"
MANIFEST = packaged_manifest("demo")
LIMITS = ReaderLimits(deadline_s=60)
ABOUT_98, ABOUT_7 = range(94, 103), range(6, 11)

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the cases from the field (../shared/cases) are not here")


@dataclass(frozen=True)
class Right:
    """How many tiles are right and what is doubted, or the refusal: its code and words; `levels` are downsamples."""

    tiles: Sequence[int] = ()
    levels: Sequence[float] = ()
    doubts: Sequence[str] = ()
    code: str = ""
    says: str = ""


RIGHT = {
    "reference.tif": Right(range(98, 99), (1, 4, 16)),
    "padded_levels_512.tif": Right(ABOUT_98, (1, 2, 4, 8, 16)),
    # Its objective of 20× does not go with 0.25 µm/px.
    "padded_levels_dicom_fine/l0.dcm": Right(ABOUT_98, (1, 2, 4, 8), ("mpp_contradicted",)),
    "unscanned_around_little_tissue.tif": Right(ABOUT_7),
    "unscanned_mirax.mrxs": Right(ABOUT_7),
    "ycbcr_tiles_called_rgb.tif": Right(ABOUT_98, doubts=("colors_contradicted",)),
    "every_seventh_tile_of_another_encoder.svs": Right(ABOUT_98, doubts=("colors_contradicted",)),
    "ycbcr_called_rgb_dicom/l0.dcm": Right(code="unreadable_slide", says="another colour space"),
    "tiled_macro_as_level.svs": Right(ABOUT_98, (1, 4), ("level_not_believed",)),
    "low_levels_blank.tif": Right(ABOUT_98, (1,), ("level_not_believed",)),
    "lower_half_of_level0_missing.tif": Right(
        code="unreadable_slide", says="(224, 1344) – (2464, 2912), where its overview shows tissue"
    ),
    "rgb_in_three_pages.ome.tif": Right(code="unreadable_slide", says="3 grey pages"),
    "dark_dab_beside_pale.tif": Right(ABOUT_98),
    "background_blacked_31px.tif": Right(ABOUT_98),
    "ten_times_too_fine.tif": Right(code="missing_mpp", says="states 0.05 µm/px", doubts=("mpp_not_believed",)),
    "float32.tif": Right(code="unsupported_format", says="floating-point"),
    "twelve_bit_in_sixteen.tif": Right(code="unsupported_format", says="16 bits"),
    "z_stack_dicom/l0.dcm": Right(code="unsupported_format", says="z-stack"),
    "features_legacy_torch.pt": Right(code="unsupported_format", says="before version 1.6"),
}


@pytest.fixture(scope="module")
def demo_model() -> InstalledModel:
    """The real one, whose tiles the cases were made for."""
    return open_model(PACKAGED, "demo")


@dataclass(frozen=True)
class Outcome:
    """What became of a slide, by whichever way."""

    tiles: int | None
    doubts: tuple[str, ...]
    code: str
    detail: str


@pytest.mark.parametrize("name", RIGHT)
async def test_a_case_is_right_over_http_and_in_inspect(
    client: httpx.AsyncClient, parts: Parts, settings: Settings, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    right, path = RIGHT[name], CASES / name
    over_http = await sent(client, parts, files_of(path))
    report = inspected(settings, path, capsys)

    error = report["error"] or {"code": "", "detail": ""}
    doubts = tuple(it["code"] for it in report["warnings"])
    tiles = report["plan"] and report["plan"]["tile_count"]
    assert over_http == Outcome(tiles, doubts, error["code"], error["detail"])
    assert (error["code"], set(doubts)) == (right.code, set(right.doubts))
    assert right.says in error["detail"]
    assert tiles in (right.tiles or [None])
    if right.levels:
        assert [level["downsample"] for level in report["levels"]] == list(right.levels)


async def test_features_that_contradict_the_slide_or_themselves_are_refused(
    client: httpx.AsyncClient, parts: Parts
) -> None:
    uploaded = await client.post("/v1/slides", files=files_of(CASES / "reference.tif"))
    slide_id = uploaded.json()["id"]
    refusals = {
        "features_of_another_slide.h5": "of a slide of 4608 × 3840 px, this one has 2560 × 3072",
        "features_beyond_stated_slide.h5": "beyond the slide's size",
        "features_overlap_unsaid.h5": "closer together",
    }
    for name, why in refusals.items():
        refused = await client.put(f"/v1/slides/{slide_id}/features", files=files_of(CASES / name))
        assert problem_of(refused, 422) == "unusable_features"
        assert why in refused.json()["detail"]
        assert (await client.get(f"/v1/slides/{slide_id}")).json() == uploaded.json()
    await run_next_job(parts)
    for name in ("features_beyond_stated_slide.h5", "features_overlap_unsaid.h5"):
        alone = await sent(client, parts, files_of(CASES / name))
        assert (alone.code, refusals[name] in alone.detail) == ("unusable_features", True)


async def test_two_slides_in_one_form_are_refused(client: httpx.AsyncClient) -> None:
    refused = await client.post("/v1/slides", files=files_of(CASES / "one_form_a.svs", CASES / "one_form_b.svs"))

    assert problem_of(refused, 415) == "unsupported_format"
    assert "(one_form_a.svs)" in refused.json()["detail"]
    assert "(one_form_b.svs)" in refused.json()["detail"]


def files_of(*paths: Path) -> list[tuple[str, tuple[str, bytes]]]:
    """The form's fields: with one path all files of its slide."""
    if len(paths) == 1 and paths[0].parent != CASES:
        paths = tuple(sorted(paths[0].parent.iterdir()))
    if paths[0].suffix == ".mrxs":
        paths = (paths[0], *sorted(paths[0].with_suffix("").iterdir()))
    root = CASES if len({path.parent for path in paths}) > 1 else paths[0].parent
    return [("file", (str(path.relative_to(root)), path.read_bytes())) for path in paths]


async def sent(client: httpx.AsyncClient, parts: Parts, files: list[tuple[str, tuple[str, bytes]]]) -> Outcome:
    """Uploads the slide, and runs its job as a worker does."""
    answer = await client.post("/v1/slides", files=files)
    if answer.status_code != 202:
        return Outcome(None, (), answer.json()["code"], answer.json()["detail"])
    await run_next_job(parts)
    slide = (await client.get(f"/v1/slides/{answer.json()['id']}")).json()
    assert slide["status"] == ("failed" if slide["error"] else "ready")
    error = slide["error"] or {"code": "", "detail": ""}
    doubts = tuple(it["code"] for it in slide["warnings"])
    return Outcome(slide["tile_count"], doubts, error["code"], error["detail"])


async def run_next_job(parts: Parts) -> None:
    message = await WorkerQueue(parts.jobs).dequeue()
    assert message is not None
    job = replace(encode_job(parts, FakeEncode("unused")), encodes={"": plan_alone})
    await job.run({"job": message}, **(message.kwargs or {}))


def plan_alone(slide: SlideFile, mpp: float | None, features_path: Path, caller: Caller) -> SlideEmbedding:
    """What a worker does up to the first tile."""
    embedding = sample_embedding(slide.slide_id, "e" * 16)
    if features_kind(slide.path) is not None:
        read_given_features(slide.path, MANIFEST, LIMITS)
        return embedding
    with ReaderProcess(slide.path, LIMITS, folder=slide.folder) as reader:
        plan = reader.plan(MANIFEST.first_input.tiling, mpp)
    caller.on_warnings(plan.warnings)
    features_path.write_bytes(b"features")
    return replace(embedding, tile_count=len(plan.coords))


def inspected(settings: Settings, path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The report of `eyepiece inspect --json`."""
    capsys.readouterr()
    with suppress(CommandError):  # what the report says, too
        inspect(settings, InspectOptions(path, measure_encoder=False), as_json=True)
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report
