"""The recipe of the demo model: sizes, amounts and rates of every stage."""

from dataclasses import dataclass, replace
from typing import Final

from model_store.contracts.prompt import PromptTemplate
from training.language_model.conversation_task import ConversationMix
from training.loop.settings import LoopSettings
from training.preference.dpo_loss import PreferenceSettings

TEMPLATE: Final[PromptTemplate] = "llava_v1"


@dataclass(frozen=True)
class DemoRecipe:
    """The sizes of the language model are here, those of both encoders in the demo model's manifest."""

    hidden: int
    layers: int
    heads: int
    intermediate: int

    tile_slides: int
    tile_batch: int
    training_slides: int
    # 0: the model says nothing of what it was made for.
    familiar_slides: int
    align_batch: int
    views_per_slide: int
    token_noise: float
    step_tokens: int
    # Share of questions with a letter, Yes or No for an answer: the first stage has most to learn about them.
    closed_in_words: float
    closed_on_slides: float
    # Share of everyday questions, in the last stage alone.
    everyday: float

    # The stage of honest answers: tokens of a step, half of them ordinary conversations, and what a free answer's first
    # token counts.
    honest_tokens: int
    honest_first_weight: float
    # It and the preference stage: of the training slides so many, pairs in all, tokens of them in a step (the ordinary
    # conversations' are `step_tokens`, at least as many), share about regions, what is trained, and how pairs weigh.
    prefer_slides: int
    prefer_pairs: int
    prefer_tokens: int
    region_share: float
    prefer_trains: tuple[str, ...]
    preference: PreferenceSettings

    tiles_half: LoopSettings
    tiles_whole: LoopSettings
    language: LoopSettings
    align_slides: LoopSettings
    align_features: LoopSettings
    instruct: LoopSettings
    instruct_everyday: LoopSettings
    honest: LoopSettings
    prefer: LoopSettings

    def honest_mix(self, settings: LoopSettings) -> ConversationMix:
        """The conversations of the stage of honest answers."""
        mix = self.mix(settings, self.closed_on_slides, self.everyday)
        return replace(mix, step_tokens=self.honest_tokens, first_weight=self.honest_first_weight)

    def mix(self, settings: LoopSettings, closed: float, everyday: float = 0.0) -> ConversationMix:
        """The conversations of a stage: with a slide in words or as tokens, always the same kinds of questions."""
        return ConversationMix(
            template=TEMPLATE,
            most_turns=8,
            closed=closed,
            everyday=everyday,
            step_tokens=self.step_tokens,
            scaffold_weight=1.0,
            prompt_weight=0.0,
            seed=settings.seed,
        )


DEMO: Final = DemoRecipe(
    hidden=192,
    layers=6,
    heads=6,
    intermediate=512,
    tile_slides=1_300,
    tile_batch=64,
    training_slides=1_200,
    familiar_slides=100,
    align_batch=32,
    views_per_slide=8,
    token_noise=0.05,
    step_tokens=6_400,
    closed_in_words=0.7,
    closed_on_slides=0.5,
    everyday=0.25,
    honest_tokens=9_600,
    honest_first_weight=3.0,
    prefer_slides=300,
    prefer_pairs=30_000,
    prefer_tokens=6_400,
    region_share=0.2,
    # A frozen projector: the pilot's arms that trained it lost what the slide says.
    prefer_trains=("llama",),
    preference=PreferenceSettings(beta=0.1, label_smoothing=0.0, weight=0.5, supervised=1.0),
    tiles_half=LoopSettings(stage="tiles-half", steps=550, learning_rate=1e-3, decay_from=1.0, seed=0),
    tiles_whole=LoopSettings(
        stage="tiles-whole", steps=500, learning_rate=7e-4, warmup_steps=20, decay_from=0.3, seed=1
    ),
    language=LoopSettings(stage="language", steps=700, learning_rate=2e-3, decay_from=0.6, seed=2),
    align_slides=LoopSettings(
        stage="align-slides", steps=800, learning_rate=8e-4, warmup_steps=40, decay_from=0.5, seed=3
    ),
    align_features=LoopSettings(
        stage="align-features", steps=150, learning_rate=3e-3, warmup_steps=20, decay_from=0.5, seed=4
    ),
    instruct=LoopSettings(stage="instruct", steps=900, learning_rate=1e-3, warmup_steps=50, decay_from=0.4, seed=5),
    instruct_everyday=LoopSettings(
        stage="instruct-everyday", steps=240, learning_rate=6e-4, warmup_steps=20, decay_from=0.3, seed=6
    ),
    honest=LoopSettings(
        stage="honest",
        steps=900,
        learning_rate=5e-4,
        warmup_steps=30,
        decay_from=0.4,
        seed=7,
        checkpoint_every=25,
    ),
    prefer=LoopSettings(
        stage="prefer", steps=500, learning_rate=1e-4, warmup_steps=20, decay_from=0.4, seed=8, checkpoint_every=25
    ),
)
