"""Trains the demo model: the paper's three stages, and before them what the published model takes ready-made.

    tiles            a tile encoder that sees           (published: Prov-GigaPath's ViT-g)
    language         a language model that can read     (published: Vicuna-7B)
    draw-slides      slides for the stages below, drawn and cut and encoded as they are when they are served
    align-slides     stage 1: slide encoder, contrastive, on slide-report pairs
    align-features   stage 2: the projector alone
    instruct         stage 3: projector and language model, slide encoder frozen
    honest           wordings, refusals, doubts and regions; projector and slide encoder frozen (training.honest_demo)
    familiarity      statistics of the tissue that the model knows, of slides that it was not trained on
    demo             all of these, and the model as it is installed and served (training.export_demo)
    published        its language model in LLaVA's own layout

Each step keeps its result in the work folder and is passed over when it is there; a step that was killed goes on
from its last checkpoint. WSI-LLaVA: arXiv 2412.02141.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from model_store.manifest import Manifest, packaged_manifest_text, parse_manifest
from training.demo_recipe import DEMO, DemoRecipe
from training.language_model.conversation_task import SlideTask, TokenizedSlides, WrittenSlideTask
from training.language_model.demo_corpus import demo_corpus
from training.language_model.demo_tokenizer import train_tokenizer
from training.language_model.slide_language_model import SlideLanguageModel, train_only
from training.loop.run_stage import run_stage
from training.loop.settings import LoopSettings
from training.slide_encoder.align_slide_text import AlignmentTask, SlideTextAligner
from training.slide_encoder.slide_bank import FIRST_SLIDE_SEED, BankedSlide, make_slide_bank
from training.slide_encoder.slide_views import random_view
from training.tile_encoder.tile_bank import FIRST_TILE_SEED, make_tile_bank
from training.tile_encoder.train_tile_encoder import TileTeacher, train_tile_encoder
from training.write_model import LlamaShape

MODEL = "demo"
_Model = TypeVar("_Model")


@dataclass(frozen=True)
class DemoTraining:
    """Where training keeps its results, how many processes may draw slides, and the recipe."""

    work: Path
    processes: int
    recipe: DemoRecipe = DEMO

    @property
    def manifest(self) -> Manifest:
        """The demo model's, as it is packaged: the architecture that is trained here."""
        return parse_manifest(packaged_manifest_text(MODEL))

    @property
    def tile_weights(self) -> Path:
        """The trained tile encoder."""
        return self.work / "tile_encoder.safetensors"


def train_tiles(training: DemoTraining) -> TileTeacher:
    """The tile encoder, from labelled tiles."""
    recipe = training.recipe
    bank = make_tile_bank(training.work / "tile-bank", recipe.tile_slides, FIRST_TILE_SEED, training.processes)
    teacher = _seeded(lambda: TileTeacher(training.manifest.timm_tile_encoder()))
    train_tile_encoder(teacher, bank, training.work, recipe.tiles_half, recipe.tiles_whole, recipe.tile_batch)
    save_file(_halved(teacher.encoder.state_dict()), training.tile_weights)
    return teacher


def train_language(training: DemoTraining) -> SlideLanguageModel:
    """The language model, from slides in words; the projector has no part in it."""
    recipe, tokenizer = training.recipe, demo_tokenizer()
    model = new_language_model(training, tokenizer)
    train_only(model, "llama", "scaffold")
    run_stage(
        model,
        WrittenSlideTask(recipe.mix(recipe.language, recipe.closed_in_words), tokenizer),
        recipe.language,
        training.work / "language",
    )
    return model


def draw_slides(training: DemoTraining) -> list[BankedSlide]:
    """Slides for the stages below, drawn and encoded."""
    if not training.tile_weights.is_file():
        train_tiles(training)
    return make_slide_bank(
        training.work / "slide-bank",
        training.manifest,
        training.tile_weights,
        training.recipe.training_slides,
        FIRST_SLIDE_SEED,
        training.processes,
    )


def align_slides(training: DemoTraining) -> SlideTextAligner:
    """Stage 1: the slide encoder, from slides and their reports."""
    recipe, tokenizer = training.recipe, demo_tokenizer()
    aligner = _seeded(lambda: SlideTextAligner(training.manifest.longnet_pool(), tokenizer.get_vocab_size()))
    task = AlignmentTask(
        draw_slides(training), tokenizer, aligner.spec.slide_tokens, recipe.align_batch, recipe.align_slides.seed
    )
    run_stage(aligner, task, recipe.align_slides, training.work / "align-slides")
    return aligner


def align_features(training: DemoTraining) -> SlideLanguageModel:
    """Stage 2: the projector learns to say slide tokens in the frozen language model's words."""
    settings = training.recipe.align_features
    model = train_language(training)
    train_only(model, "mm_projector")
    run_stage(model, _slide_task(training, settings), settings, training.work / "align-features")
    return model


def instruct(training: DemoTraining) -> SlideLanguageModel:
    """Stage 3: projector and language model learn to answer about slides, at last in everyday words too."""
    recipe = training.recipe
    model = align_features(training)
    train_only(model, "mm_projector", "llama", "scaffold")
    for settings, everyday in ((recipe.instruct, 0.0), (recipe.instruct_everyday, recipe.everyday)):
        run_stage(model, _slide_task(training, settings, everyday), settings, training.work / settings.stage)
    return model


@cache
def demo_tokenizer() -> Tokenizer:
    """The same each time: it depends on the wordings alone. Nobody changes it."""
    return train_tokenizer(demo_corpus())


def llama_shape(recipe: DemoRecipe, tokenizer: Tokenizer) -> LlamaShape:
    """The demo model's language model; the placeholder stands outside its vocabulary."""
    vocabulary = tokenizer.get_vocab_size() - 1
    return LlamaShape(vocabulary, recipe.hidden, recipe.layers, recipe.heads, recipe.intermediate)


def new_language_model(training: DemoTraining, tokenizer: Tokenizer) -> SlideLanguageModel:
    """Untrained."""
    shape, width = llama_shape(training.recipe, tokenizer), training.manifest.projector_width
    return _seeded(lambda: SlideLanguageModel(shape, width, scaffold=True))


def tokenized_slides(
    aligner: SlideTextAligner, slides: list[BankedSlide], views: int, seed: int = 0
) -> TokenizedSlides:
    """`views` random views of each slide, or with 0 each slide as it is, through the frozen slide encoder."""
    rng = np.random.default_rng([seed, 4])
    seen = [random_view(slide, rng) for slide in slides for _ in range(views)] if views else slides
    return TokenizedSlides(slide_tokens_of(aligner, seen), tuple(view.truth for view in seen))


@torch.inference_mode()
def slide_tokens_of(aligner: SlideTextAligner, views: Sequence[BankedSlide]) -> Tensor:
    """float16 [views, N, D] through the frozen slide encoder."""
    aligner.eval()
    tokens = [
        aligner.slide_tokens(torch.from_numpy(view.features).float(), torch.from_numpy(view.coords)) for view in views
    ]
    return torch.stack(tokens).half()


def _slide_task(training: DemoTraining, settings: LoopSettings, everyday: float = 0.0) -> SlideTask:
    recipe = training.recipe
    slides = tokenized_slides(align_slides(training), draw_slides(training), recipe.views_per_slide, settings.seed)
    return SlideTask(
        recipe.mix(settings, recipe.closed_on_slides, everyday), demo_tokenizer(), slides, recipe.token_noise
    )


def _seeded(make: Callable[[], _Model]) -> _Model:
    torch.manual_seed(0)
    return make()


def _halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As it will be shipped: what comes after is trained on what will be served."""
    return {name: value.half().contiguous() for name, value in state.items()}


def arrays_of(state: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    """As `write_model` takes weights."""
    return {name: value.float().cpu().numpy() for name, value in state.items()}
