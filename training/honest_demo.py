"""The demo model's stage of honest answers, the last of the model that ships: wordings, refusals, doubts, regions.

It begins from the trained third stage, or from an installed demo model, whose slide encoder and tile encoder are then
used too: so a model that ships can be taught on without its own training's folder. Its slides are what preferences are
about as well (training.prefer_demo).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from safetensors.torch import load_file
from tokenizers import Tokenizer

from model_store.installed import InstalledModel
from synthetic.slide_truth import QUADRANTS
from training.language_model.configuration import load_published
from training.language_model.conversation_task import HonestTask, TokenizedSlides
from training.language_model.slide_language_model import SlideLanguageModel, train_only
from training.loop.begun_with import require_same_start
from training.loop.run_stage import run_stage
from training.loop.settings import LoopSettings
from training.slide_encoder.align_slide_text import SlideTextAligner
from training.slide_encoder.slide_bank import FIRST_SLIDE_SEED, BankedSlide, make_slide_bank
from training.slide_encoder.slide_views import quadrant_view, random_view
from training.train_demo import (
    DemoTraining,
    align_slides,
    demo_tokenizer,
    draw_slides,
    instruct,
    llama_shape,
    slide_tokens_of,
)

# As many tiles as the server asks of a region.
_LEAST_TILES: Final = 16


@dataclass(frozen=True)
class DemoStart:
    """A language model to go on from, its tokenizer, and what slide tokens come from: encoder and drawn slides."""

    model: SlideLanguageModel
    tokenizer: Tokenizer
    aligner: SlideTextAligner
    slides: Sequence[BankedSlide]


@dataclass(frozen=True)
class ShownSlides:
    """Views of slides, and regions of some of them: each `of` the place of its view. A region's truth says of necrosis
    what holds of the region."""

    slides: TokenizedSlides
    regions: TokenizedSlides
    of: Sequence[int]


def answer_honestly(training: DemoTraining, start: InstalledModel | None, seed: int) -> DemoStart:
    """The stage, in `honest-<seed>`: what comes of it, with what it began with beside the language model.

    Raises:
        SettingsChanged: the folder holds the stage of another model, or with other settings.
    """
    recipe = training.recipe
    begun = begin_with(training, start) if start else _from_stages(training)
    # A frozen projector, as where preferences are learned: what the slide says stays as it was read.
    train_only(begun.model, *recipe.prefer_trains)
    settings = replace(recipe.honest, stage=f"honest-{seed}", seed=recipe.honest.seed + 100 * seed)
    folder = training.work / settings.stage
    require_same_start(folder, begun.model)
    shown = show_slides(training, begun, settings)
    task = HonestTask(
        recipe.honest_mix(settings),
        begun.tokenizer,
        shown.slides,
        shown.regions,
        region_share=recipe.region_share,
        noise=recipe.token_noise,
    )
    run_stage(begun.model, task, settings, folder)
    return begun


def show_slides(training: DemoTraining, begun: DemoStart, settings: LoopSettings) -> ShownSlides:
    """Random views of every slide, and quadrants of half of them: the same for the same seed."""
    recipe, rng = training.recipe, np.random.default_rng([settings.seed, 4])
    views = [random_view(slide, rng) for slide in begun.slides for _ in range(recipe.views_per_slide)]
    cut = [(row, quadrant_view(view, quadrant)) for row, view in enumerate(views[::2]) for quadrant in QUADRANTS]
    regions = [(2 * row, region) for row, region in cut if len(region.coords) >= _LEAST_TILES]
    tokens = slide_tokens_of(begun.aligner, [*views, *(region for _, region in regions)])
    return ShownSlides(
        TokenizedSlides(tokens[: len(views)], tuple(view.truth for view in views)),
        TokenizedSlides(tokens[len(views) :], tuple(region.truth for _, region in regions)),
        [row for row, _ in regions],
    )


def begin_with(training: DemoTraining, start: InstalledModel) -> DemoStart:
    """An installed demo model as it is, with slides drawn and encoded by its own encoders."""
    tokenizer = demo_tokenizer()
    model = _bare_model(training, tokenizer)
    load_published(model, start.folder / start.manifest.llm.path)
    aligner = SlideTextAligner(training.manifest.longnet_pool(), tokenizer.get_vocab_size())
    weights = load_file(start.folder / training.manifest.longnet_pool().weights)
    aligner.slide_encoder.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    slides = make_slide_bank(
        training.work / "slide-bank",
        training.manifest,
        start.folder / training.manifest.first_input.tile_encoder.weights,
        training.recipe.prefer_slides,
        FIRST_SLIDE_SEED,
        training.processes,
    )
    return DemoStart(model, tokenizer, aligner, slides)


def _from_stages(training: DemoTraining) -> DemoStart:
    trained = instruct(training)
    # The scaffold has done its work and is left behind.
    tokenizer = demo_tokenizer()
    model = _bare_model(training, tokenizer)
    kept = {name: value for name, value in trained.state_dict().items() if not name.startswith("scaffold.")}
    model.load_state_dict(kept)
    return DemoStart(model, tokenizer, align_slides(training), draw_slides(training)[: training.recipe.prefer_slides])


def _bare_model(training: DemoTraining, tokenizer: Tokenizer) -> SlideLanguageModel:
    shape = llama_shape(training.recipe, tokenizer)
    return SlideLanguageModel(shape, training.manifest.projector_width, scaffold=False)
