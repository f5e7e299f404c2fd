"""The ablations that need training, in miniature, on slides of random features."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_preference import PACKAGED_MODELS, packaged_tokenizer

import training.slide_ablations as slide_ablations
from evaluation.ablations.table_file import read_tables
from model_store.installed import open_model
from model_store.manifest import packaged_manifest
from synthetic.slide_truth import slide_truth
from training.demo_recipe import DEMO
from training.loop.settings import LoopSettings
from training.slide_ablations import AblationSize, ablate_slide_encoder
from training.slide_encoder.slide_bank import BankedSlide
from training.train_demo import DemoTraining

RECIPE = replace(DEMO, views_per_slide=1, align_batch=4)
SIZE = AblationSize(share=0.5, training_slides=4, held_out_slides=5, step_tokens=200)


def banked(seed: int) -> BankedSlide:
    """Twelve by twelve tiles that nothing was drawn on."""
    width = packaged_manifest("demo").first_input.tile_encoder.feature_dim
    features = np.random.default_rng(seed).standard_normal((144, width)).astype(np.float16)
    rows, columns = np.divmod(np.arange(144), 12)
    return BankedSlide(slide_truth(seed), features, np.stack([columns, rows], axis=1).astype(np.int32))


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DemoTraining:
    def bank(_folder: Path, _manifest: object, _weights: Path, slides: int, first: int, _: int) -> list[BankedSlide]:
        return [banked(first + place) for place in range(slides)]

    monkeypatch.setattr(slide_ablations, "make_slide_bank", bank)
    monkeypatch.setattr(slide_ablations, "demo_tokenizer", packaged_tokenizer)
    return DemoTraining(tmp_path, processes=1, recipe=RECIPE)


def test_both_experiments_leave_their_tables(training: DemoTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is trained is for the loop's own tests; here every stage leaves its model as it was."""
    begun: list[tuple[str, int, tuple[str, ...]]] = []

    def left_alone(model: torch.nn.Module, _task: object, settings: LoopSettings, _folder: Path) -> None:
        trained = {name.split(".")[0] for name, value in model.named_parameters() if value.requires_grad}
        begun.append((settings.stage, settings.steps, tuple(sorted(trained))))

    monkeypatch.setattr(slide_ablations, "run_stage", left_alone)

    without, aligned = ablate_slide_encoder(training, open_model(PACKAGED_MODELS, "demo"), SIZE, training.work / "t")

    assert [stage for stage, _, _ in begun] == [
        "ablation-align-slides",
        *(f"ablation-{arm}-{stage}" for arm in ("with", "without") for stage in ("align-features", "instruct")),
    ]
    assert [steps for _, steps, _ in begun] == [400, 75, 450, 75, 450]
    assert [trained for _, _, trained in begun[1:3]] == [("mm_projector",), ("llama", "mm_projector")]
    states = ("before stage 2", "after stage 2", "after stage 3")
    assert [row[0] for row in aligned.rows] == [
        "before stage 1, shared space",
        "after stage 1, shared space",
        *(f"{arm}: {state}" for arm in ("slide encoder", "mean of tiles") for state in states),
    ]
    # Both arms begin with the same new projector, and a projector that learned nothing is at chance.
    assert without.rows[0][:3] == ["all", "", str(5 * 14)]
    assert {row[0] for row in without.rows} >= {"grade", "location of necrosis"}
    kept = [table.as_document() for table in read_tables(training.work / "t")]
    assert kept == [json.loads(json.dumps(table.as_document())) for table in (aligned, without)]


def test_the_mean_of_tiles_does_not_know_where_they_lie() -> None:
    slide = banked(3)
    order = np.random.default_rng(0).permutation(144)
    shuffled = replace(slide, features=slide.features[order])

    rows = slide_ablations._mean_of_tiles([slide, shuffled])

    assert rows.shape == (2, 1, slide.features.shape[1])
    assert torch.allclose(rows[0].float(), rows[1].float(), atol=1e-3)


def test_what_is_said_first_is_what_the_installed_model_says(training: DemoTraining) -> None:
    """With its own projector and slide tokens the answers are letters and words, not padding."""
    parts = slide_ablations._parts(training, open_model(PACKAGED_MODELS, "demo"), SIZE)
    aligner = slide_ablations._installed_aligner(parts)
    arm = slide_ablations._Arm("with", lambda slides: slide_ablations.slide_tokens_of(aligner, slides))
    model = slide_ablations.SlideLanguageModel(
        slide_ablations.llama_shape(RECIPE, parts.tokenizer), training.manifest.projector_width, scaffold=False
    )
    slide_ablations.load_published(model, parts.start.folder / parts.start.manifest.llm.path)
    questions = [one for slide in parts.held_out for one in slide_ablations._questions(slide)]
    opening = slide_ablations.slide_opening("llava_v1", 32)

    said = slide_ablations._first_tokens(
        model, parts.tokenizer, opening, questions[:8], arm.rows(parts.held_out)[:1].expand(8, -1, -1)
    )

    letters = {"A", "B", "C", "D"}
    for question, text in zip(questions[:8], said, strict=True):
        assert text in (letters if question.form == "letter" else {"Yes", "No"})
