"""The demo model's preference stage: pairs from the truth of its training slides, beside its ordinary third stage.

First the chosen answers alone are learned: to a model that never refused, a refusal is so unlikely that preferences
would move nothing else. What comes of that is the reference of the arms, which go on from it. The whole
begins from the trained third stage, or from an installed demo model (`start`), whose slide encoder and tile encoder
are then used too: so a model that ships can be tuned on without its own training's folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from encoders.familiarity import keep_statistics, read_statistics
from encoders.golden_vector import record_golden
from model_store.installed import InstalledModel, open_model
from model_store.manifest import packaged_manifest_text
from synthetic.slide_truth import QUADRANTS
from training.demo_recipe import TEMPLATE
from training.familiar_slides import record_familiarity
from training.language_model.configuration import load_published
from training.language_model.conversation_task import SlideTask, TokenizedSlides
from training.language_model.published_layout import llava_weights
from training.language_model.slide_language_model import SlideLanguageModel, train_only
from training.language_model.tokenized import slide_opening
from training.loop.settings import LoopSettings
from training.preference.from_truth import pairs_from_truth, shuffled
from training.preference.pairs import PreferencePair
from training.preference.prefer import PairData, SlideRows, prefer
from training.slide_encoder.align_slide_text import SlideTextAligner
from training.slide_encoder.slide_bank import FIRST_SLIDE_SEED, BankedSlide, make_slide_bank
from training.slide_encoder.slide_views import quadrant_view, random_view
from training.train_demo import (
    DemoTraining,
    align_slides,
    arrays_of,
    demo_tokenizer,
    draw_slides,
    instruct,
    llama_shape,
    slide_tokens_of,
    train_tiles,
)
from training.write_model import write_model

# The first half of the stage alone, and three ways to go on from there.
Arm = Literal["answers", "preference", "supervised", "shuffled"]
ARMS: Final[tuple[Arm, ...]] = ("answers", "preference", "supervised", "shuffled")
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
class _Shown:
    """Slide tokens by place, and what pairs are about: names of views and of regions with the truth of each."""

    tokens: torch.Tensor
    ordinary: TokenizedSlides
    views: list[str]
    regions: list[str]
    pairs: list[PreferencePair]


def prefer_demo(training: DemoTraining, start: InstalledModel | None, arm: Arm, seed: int) -> SlideLanguageModel:
    """The stage: the chosen answers in `prefer-answers-<seed>`, and an arm of the comparison in a folder of its own,
    `prefer-<arm>-<seed>`."""
    recipe = training.recipe
    begun = _from_installed(training, start) if start else _from_stages(training)
    train_only(begun.model, *recipe.prefer_trains)
    parts: tuple[tuple[Arm, LoopSettings], ...] = (("answers", recipe.prefer_answers), (arm, recipe.prefer))
    for part, settings in parts[:1] if arm == "answers" else parts:
        named = replace(settings, stage=f"prefer-{part}-{seed}", seed=settings.seed + 100 * seed)
        _prefer(training, begun, part, named)
    return begun.model


def _prefer(training: DemoTraining, begun: DemoStart, part: Arm, settings: LoopSettings) -> None:
    """One part of the stage; `begun.model` is its own reference."""
    recipe = training.recipe
    shown = _shown(training, begun, part, settings)
    ordinary = SlideTask(
        recipe.mix(settings, recipe.closed_on_slides, recipe.everyday),
        begun.tokenizer,
        shown.ordinary,
        recipe.token_noise,
    )
    places = {name: place for place, name in enumerate([*shown.views, *shown.regions])}
    rows = SlideRows(shown.tokens, [places[pair.region or pair.slide] for pair in shown.pairs])
    is_supervised = part in ("answers", "supervised")
    prefer(
        begun.model,
        ordinary,
        PairData(shown.pairs, rows, begun.tokenizer, slide_opening(TEMPLATE, shown.tokens.shape[1])),
        settings,
        replace(recipe.preference, weight=0.0) if is_supervised else recipe.preference,
        training.work / settings.stage,
        step_tokens=recipe.prefer_tokens,
    )


def export_preferred(
    training: DemoTraining, start: InstalledModel | None, arm: Arm, seed: int, folder: Path
) -> InstalledModel:
    """The tuned model as an installed one; encoders, tokenizer and familiar tissue are those that it began with."""
    model, manifest = prefer_demo(training, start, arm, seed), training.manifest
    tile_file, slide_file = manifest.first_input.tile_encoder.weights, manifest.longnet_pool().weights
    if start is None:
        tiles = arrays_of(train_tiles(training).encoder.state_dict())
        slides = arrays_of(align_slides(training).slide_encoder.state_dict())
    else:
        tiles = arrays_of(load_file(start.folder / tile_file))
        slides = arrays_of(load_file(start.folder / slide_file))
    tokenizer = demo_tokenizer()
    written = write_model(
        folder,
        packaged_manifest_text("demo"),
        encoders={tile_file: tiles, slide_file: slides},
        language_model=arrays_of(dict(llava_weights(model))),
        tokenizer=tokenizer,
        llama=llama_shape(training.recipe, tokenizer),
    )
    golden = record_golden(written, "cpu")
    if start is None:
        return record_familiarity(golden, training.recipe.familiar_slides)
    # The tile encoder is the same, and so is what it knows.
    statistics = read_statistics(start)
    return golden if statistics is None else keep_statistics(golden, statistics)


def demo_start(folder: Path) -> InstalledModel:
    """The installed demo model in `folder`; raises ModelError where there is none."""
    return open_model(folder.parent, folder.name)


def _from_stages(training: DemoTraining) -> DemoStart:
    trained = instruct(training)
    # The scaffold has done its work: no question of a pair has options for it.
    tokenizer = demo_tokenizer()
    model = _bare_model(training, tokenizer)
    kept = {name: value for name, value in trained.state_dict().items() if not name.startswith("scaffold.")}
    model.load_state_dict(kept)
    return DemoStart(model, tokenizer, align_slides(training), draw_slides(training)[: training.recipe.prefer_slides])


def _from_installed(training: DemoTraining, start: InstalledModel) -> DemoStart:
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


def _bare_model(training: DemoTraining, tokenizer: Tokenizer) -> SlideLanguageModel:
    shape = llama_shape(training.recipe, tokenizer)
    return SlideLanguageModel(shape, training.manifest.projector_width, scaffold=False)


def _shown(training: DemoTraining, begun: DemoStart, arm: Arm, settings: LoopSettings) -> _Shown:
    """Random views of every slide, quadrants of some, and the pairs about them: the same for the same seed."""
    recipe, rng = training.recipe, np.random.default_rng([settings.seed, 4])
    views = [random_view(slide, rng) for slide in begun.slides for _ in range(recipe.views_per_slide)]
    cut = [(row, quadrant_view(view, quadrant)) for row, view in enumerate(views[::2]) for quadrant in QUADRANTS]
    regions = [(2 * row, region) for row, region in cut if len(region.coords) >= _LEAST_TILES]
    names = [f"view-{row}" for row in range(len(views))]
    region_names = [f"region-{place}" for place in range(len(regions))]
    tokens = slide_tokens_of(begun.aligner, [*views, *(region for _, region in regions)])
    pairs = list(
        pairs_from_truth(
            list(zip(names, (view.truth for view in views), strict=True)),
            [(names[row], name, region.truth) for name, (row, region) in zip(region_names, regions, strict=True)],
            recipe.prefer_pairs,
            recipe.region_share,
            settings.seed,
        )
    )
    if arm == "shuffled":
        pairs = shuffled(pairs, settings.seed)
    ordinary = TokenizedSlides(tokens[: len(views)], tuple(view.truth for view in views))
    return _Shown(tokens, ordinary, names, region_names, pairs)
