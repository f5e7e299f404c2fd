"""The demo model's preference stage: pairs from the truth of its training slides, beside its ordinary third stage.

It goes on from the stage of honest answers (training.honest_demo), or from an installed demo model, and what it begins
with is its reference. A model that never refused is no start: to it a refusal is so unlikely that preferences would
move nothing else.
"""

from dataclasses import replace
from typing import Final, Literal

import torch

from model_store.installed import InstalledModel
from training.demo_recipe import TEMPLATE, DemoRecipe
from training.honest_demo import ShownSlides, answer_honestly, begin_with, show_slides
from training.language_model.conversation_task import SlideTask
from training.language_model.slide_language_model import SlideLanguageModel, train_only
from training.language_model.tokenized import slide_opening
from training.loop.begun_with import require_same_start
from training.preference.from_truth import pairs_from_truth, shuffled
from training.preference.pairs import PreferencePair
from training.preference.prefer import PairData, SlideRows, prefer
from training.train_demo import DemoTraining

# Preferences, and what tells what they give: the chosen answers alone, and half of the pairs the wrong way round.
Arm = Literal["preference", "supervised", "shuffled"]
ARMS: Final[tuple[Arm, ...]] = ("preference", "supervised", "shuffled")


def prefer_demo(training: DemoTraining, start: InstalledModel | None, arm: Arm, seed: int) -> SlideLanguageModel:
    """An arm of the comparison, in `prefer-<arm>-<seed>`; without `start` after all stages before it."""
    recipe = training.recipe
    begun = begin_with(training, start) if start else answer_honestly(training, None, seed)
    train_only(begun.model, *recipe.prefer_trains)
    settings = replace(recipe.prefer, stage=f"prefer-{arm}-{seed}", seed=recipe.prefer.seed + 100 * seed)
    require_same_start(training.work / settings.stage, begun.model)
    shown = show_slides(training, begun, settings)
    ordinary = SlideTask(
        recipe.mix(settings, recipe.closed_on_slides, recipe.everyday),
        begun.tokenizer,
        shown.slides,
        recipe.token_noise,
    )
    pairs, places = _pairs(shown, arm, recipe, settings.seed)
    tokens = torch.cat([shown.slides.tokens, shown.regions.tokens])
    prefer(
        begun.model,
        ordinary,
        PairData(pairs, SlideRows(tokens, places), begun.tokenizer, slide_opening(TEMPLATE, tokens.shape[1])),
        settings,
        replace(recipe.preference, weight=0.0) if arm == "supervised" else recipe.preference,
        training.work / settings.stage,
        step_tokens=recipe.prefer_tokens,
    )
    return begun.model


def _pairs(shown: ShownSlides, arm: Arm, recipe: DemoRecipe, seed: int) -> tuple[list[PreferencePair], list[int]]:
    """With each the place of what it is about, regions behind slides."""
    slides = [f"view-{row}" for row in range(len(shown.slides.truths))]
    regions = [f"region-{row}" for row in range(len(shown.regions.truths))]
    pairs = list(
        pairs_from_truth(
            list(zip(slides, shown.slides.truths, strict=True)),
            [
                (slides[row], name, truth)
                for name, row, truth in zip(regions, shown.of, shown.regions.truths, strict=True)
            ],
            recipe.prefer_pairs,
            recipe.region_share,
            seed,
        )
    )
    if arm == "shuffled":
        pairs = shuffled(pairs, seed)
    places = {name: place for place, name in enumerate([*slides, *regions])}
    return pairs, [places[pair.region or pair.slide] for pair in pairs]
