"""The demo's preference stage in miniature, on slides of random features: from one installed model to another."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from toy_preference import PACKAGED_MODELS

import training.honest_demo as honest_demo
from encoders.familiarity import read_statistics
from model_store.installed import InstalledModel, open_model, verify_digests
from model_store.manifest import packaged_manifest
from synthetic.slide_truth import slide_truth
from training.__main__ import main
from training.demo_recipe import DEMO
from training.errors import SettingsChanged
from training.export_demo import export_demo, export_preferred
from training.honest_demo import begin_with
from training.prefer_demo import prefer_demo
from training.slide_encoder.slide_bank import FIRST_SLIDE_SEED, BankedSlide
from training.train_demo import DemoTraining

PACKAGED = PACKAGED_MODELS / "demo"
RECIPE = replace(
    DEMO,
    prefer_slides=4,
    views_per_slide=2,
    prefer_pairs=24,
    step_tokens=400,
    honest_tokens=400,
    prefer_tokens=400,
    honest=replace(DEMO.honest, steps=2, warmup_steps=1, prefetch_workers=0),
    prefer=replace(DEMO.prefer, steps=2, warmup_steps=1, prefetch_workers=0),
)


def banked(seed: int) -> BankedSlide:
    """A square of twelve by twelve tiles that nothing was drawn on."""
    width = packaged_manifest("demo").first_input.tile_encoder.feature_dim
    features = np.random.default_rng(seed).standard_normal((144, width)).astype(np.float16)
    rows, columns = np.divmod(np.arange(144), 12)
    return BankedSlide(slide_truth(seed), features, np.stack([columns, rows], axis=1).astype(np.int32))


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DemoTraining:
    def bank(*_: object) -> list[BankedSlide]:
        return [banked(FIRST_SLIDE_SEED + place) for place in range(RECIPE.prefer_slides)]

    monkeypatch.setattr(honest_demo, "make_slide_bank", bank)
    return DemoTraining(tmp_path, processes=1, recipe=RECIPE)


@pytest.fixture
def packaged() -> InstalledModel:
    return open_model(PACKAGED.parent, "demo")


def test_the_language_model_is_tuned_and_the_rest_is_as_it_was(
    training: DemoTraining, packaged: InstalledModel
) -> None:
    written = export_preferred(training, packaged, "preference", 0, training.work / "demo")

    verify_digests(written)
    before, after = (load_file(model.folder / "llm" / "model.safetensors") for model in (packaged, written))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed
    assert not any("mm_projector" in name for name in changed)
    for file in ("tile_encoder/model.safetensors", "slide_encoder/model.safetensors", "llm/tokenizer.json"):
        assert (written.folder / file).read_bytes() == (packaged.folder / file).read_bytes()
    known, as_before = read_statistics(written), read_statistics(packaged)
    assert known is not None
    assert as_before is not None
    assert (known.limit, known.slides) == (as_before.limit, as_before.slides)
    assert np.array_equal(known.whitening, as_before.whitening)
    assert [path.parent.name for path in training.work.glob("*/done.json")] == ["prefer-preference-0"]


def test_the_arms_go_on_from_the_same_model_with_other_pairs_or_another_weight(
    training: DemoTraining, packaged: InstalledModel
) -> None:
    begun = begin_with(training, packaged).model.state_dict()
    arms = {arm: prefer_demo(training, packaged, arm, 0).state_dict() for arm in ("supervised", "shuffled")}

    settings = {part: (training.work / f"prefer-{part}-0" / "preference.json").read_text() for part in arms}
    assert '"weight": 0.0' in settings["supervised"]
    assert '"weight": 0.5' in settings["shuffled"]
    assert settings["supervised"].split('"pairs"')[1] != settings["shuffled"].split('"pairs"')[1]
    assert not list((training.work / "prefer-supervised-0").glob("reference-*")), "no preference weighs anything there"
    (name,) = [name for name in begun if name.endswith("layers.0.mlp.up_proj.weight")]
    assert all(not begun[name].equal(tuned[name]) for tuned in arms.values())


def test_the_model_that_ships_is_taught_on(training: DemoTraining, packaged: InstalledModel) -> None:
    written = export_demo(training, packaged, 0, training.work / "demo")

    verify_digests(written)
    assert [path.parent.name for path in training.work.glob("*/done.json")] == ["honest-0"]


def test_a_stage_that_went_on_from_another_model_is_not_taken_for_this_ones(
    training: DemoTraining, packaged: InstalledModel
) -> None:
    other = export_demo(training, packaged, 0, training.work / "demo")

    with pytest.raises(SettingsChanged, match="went on from another model"):
        export_demo(training, other, 0, training.work / "again" / "demo")


@pytest.mark.parametrize("command", ["prefer", "demo"])
def test_a_model_is_not_written_over_the_one_that_it_begins_with(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    arguments = [command, "--start", str(PACKAGED), "--out", str(PACKAGED), "--work", str(tmp_path)]

    assert main(arguments) == 1
    assert "name another folder" in capsys.readouterr().err


def test_pairs_are_made_of_one_source_at_a_time(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    feedback = tmp_path / "feedback.jsonl"
    feedback.write_text("")

    assert main(["pairs", "--out", str(tmp_path / "pairs.jsonl")]) == 1
    assert "one source" in capsys.readouterr().err
    assert main(["pairs", "--feedback", str(feedback), "--out", str(tmp_path / "pairs.jsonl")]) == 1
    assert "nothing to write" in capsys.readouterr().err
