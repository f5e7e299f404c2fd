"""All stages in miniature: each leaves its result, a second run passes over them, and the end is a model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from encoders.pipeline import load_encoders
from encoders.types import TileFeatures
from model_store.installed import verify_digests
from training.demo_recipe import DEMO
from training.export_demo import export_demo, export_preferred, export_published
from training.train_demo import DemoTraining, align_slides, draw_slides, tokenized_slides, train_language

SHORT = {"steps": 2, "warmup_steps": 1, "prefetch_workers": 0}
STAGES = ("tiles_half", "tiles_whole", "language", "align_slides", "align_features", "instruct", "instruct_everyday")
RECIPE = replace(
    DEMO,
    tile_slides=2,
    tile_batch=8,
    training_slides=4,
    familiar_slides=0,
    align_batch=4,
    views_per_slide=2,
    step_tokens=600,
    prefer_slides=4,
    prefer_pairs=24,
    honest_tokens=400,
    prefer_tokens=400,
    honest=replace(DEMO.honest, **SHORT),
    prefer=replace(DEMO.prefer, **SHORT),
    **{stage: replace(getattr(DEMO, stage), **SHORT) for stage in STAGES},
)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> DemoTraining:
    return DemoTraining(tmp_path_factory.mktemp("training"), processes=1, recipe=RECIPE)


@pytest.fixture(scope="module")
def exported(training: DemoTraining) -> Path:
    return export_demo(training, None, 0, training.work / "demo").folder


def contents(folder: Path) -> dict[Path, bytes]:
    """All files but the golden vector, which torch computes and not to the last bit each time, and its digest."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in paths if path.name not in ("golden.safetensors", "SHA256SUMS")}


def test_every_stage_leaves_a_record(training: DemoTraining, exported: Path) -> None:
    done = {path.parent.name for path in training.work.glob("*/done.json")}
    assert done == {stage.replace("_", "-") for stage in STAGES} | {"honest-0"}


def test_the_model_is_complete_and_its_encoders_run(training: DemoTraining, exported: Path) -> None:
    from model_store.installed import open_model

    model = open_model(exported.parent, "demo")
    verify_digests(model)
    load_encoders(model, "cpu")


def test_a_second_run_changes_nothing(training: DemoTraining, exported: Path) -> None:
    before = contents(exported)
    export_demo(training, None, 0, exported)
    assert contents(exported) == before


def test_the_preference_stage_goes_on_from_the_model_that_ships(training: DemoTraining, exported: Path) -> None:
    tuned = export_preferred(training, None, "supervised", 0, training.work / "tuned" / "demo")

    verify_digests(tuned)
    assert (training.work / "prefer-supervised-0" / "done.json").is_file()
    before, after = (load_file(folder / "llm" / "model.safetensors") for folder in (exported, tuned.folder))
    assert before.keys() == after.keys()
    assert any((before[name] != after[name]).any() for name in before)
    assert (before["model.mm_projector.0.weight"] == after["model.mm_projector.0.weight"]).all()


def test_only_what_a_stage_trains_changes(training: DemoTraining, exported: Path) -> None:
    language = load_file(training.work / "language" / "weights.safetensors")
    projected = load_file(training.work / "align-features" / "weights.safetensors")
    assert {name.split(".")[0] for name in language} == {"llama", "scaffold"}
    assert {name.split(".")[0] for name in projected} == {"mm_projector"}


def test_what_is_served_gives_the_tokens_that_were_trained_on(training: DemoTraining, exported: Path) -> None:
    from encoders.slide_stages.tile_stage import ReadTiles
    from encoders.tiling.plan_tiles import plan_at_target
    from model_store.installed import open_model

    encoders = load_encoders(open_model(exported.parent, "demo"), "cpu")
    tiling = encoders.model.manifest.first_input.tiling
    slide = draw_slides(training)[0]
    trained = tokenized_slides(align_slides(training), [slide], views=0).tokens[0]
    plan = plan_at_target(tiling, slide.coords.astype(np.int64) * tiling.tile_px)
    read = ReadTiles({"tiles": TileFeatures(plan, slide.features.astype(np.float32))})
    served = encoders.stage.encode(read)["slide_tokens"]
    # fp16 weights in one, fp32 in the other.
    torch.testing.assert_close(torch.from_numpy(served), trained, atol=2e-2, rtol=2e-2)


def test_the_published_layout_has_the_same_weights(training: DemoTraining, exported: Path) -> None:
    published = export_published(training, training.work / "published")
    served = load_file(exported / "llm" / "model.safetensors")
    (shard,) = published.glob("*.safetensors")
    written = load_file(shard)
    assert written.keys() == served.keys()
    assert all((written[name] == served[name]).all() for name in served)


def test_a_language_model_comes_back_as_it_was_trained(training: DemoTraining, exported: Path) -> None:
    trained, again = train_language(training).state_dict(), train_language(training).state_dict()
    assert all(torch.equal(trained[name], again[name]) for name in trained)
