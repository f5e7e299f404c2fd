"""Two experiments on the demo model that need training: the slide encoder removed, and alignment stage by stage.

Both arms of the first begin with the same language model and a new projector, see the same slides for as many steps of
stages 2 and 3 (projector, then both), and answer closed questions about slides that no training saw. One is shown the
slide encoder's tokens, the other one row: the mean of the tile features. The slide encoder stays frozen, as in stage 3.

Stages are whole with `share` 1. A smaller share of their steps and slides is an experiment that a desk machine runs in
minutes; what it finds holds for models of that size.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from evaluation.ablations.alignment import Alignment, align, alignment_table
from evaluation.ablations.table_file import AblationTable
from evaluation.scoring.statistics import bootstrap_by_patient, wilson
from model_store.installed import InstalledModel
from synthetic.questions.question import Question, letter_question, report, yes_no_question
from synthetic.questions.topics import ATTRIBUTES, NECROSIS
from synthetic.questions.wordings import SEEN
from training.demo_recipe import TEMPLATE
from training.language_model.configuration import load_published
from training.language_model.conversation_task import SlideTask, TokenizedSlides
from training.language_model.slide_language_model import SlideLanguageModel, train_only
from training.language_model.tokenized import slide_opening, tokenize_conversation
from training.loop.run_stage import run_stage
from training.loop.settings import LoopSettings
from training.slide_encoder.align_slide_text import AlignmentTask, SlideTextAligner
from training.slide_encoder.slide_bank import FIRST_SLIDE_SEED, BankedSlide, make_slide_bank
from training.slide_encoder.slide_views import random_view
from training.train_demo import DemoTraining, demo_tokenizer, llama_shape, slide_tokens_of

# Drawn apart from those of every stage.
FIRST_HELD_OUT_SEED: Final = FIRST_SLIDE_SEED + 500_000
ALIGNMENT_FILE: Final = "alignment-by-stage.json"
WITHOUT_FILE: Final = "without-slide-encoder.json"
_ROWS_AT_ONCE: Final = 32


@dataclass(frozen=True)
class AblationSize:
    """`share` of the recipe's steps, each of `step_tokens` where that is given; slides to train on, and to be asked
    about."""

    share: float = 1.0
    training_slides: int = 1_200
    held_out_slides: int = 100
    step_tokens: int | None = None

    def of(self, settings: LoopSettings, stage: str) -> LoopSettings:
        """A stage's settings, in a folder of their own; in float32, as the preference stage."""
        steps = max(1, round(settings.steps * self.share))
        warmup = min(settings.warmup_steps, steps // 4)
        return replace(settings, stage=stage, steps=steps, warmup_steps=warmup, precision="fp32")


@dataclass(frozen=True)
class _Parts:
    """What both experiments begin with."""

    training: DemoTraining
    start: InstalledModel
    size: AblationSize
    tokenizer: Tokenizer
    slides: Sequence[BankedSlide]
    held_out: Sequence[BankedSlide]

    @property
    def folder(self) -> Path:
        return self.training.work / "ablations"


def ablate_slide_encoder(
    training: DemoTraining, start: InstalledModel, size: AblationSize, out: Path
) -> tuple[AblationTable, AblationTable]:
    """Both experiments, from an installed demo model's tile encoder, slide encoder and language model. Writes their
    tables into `out`, a run's folder `ablations`; stages that are done are not done again."""
    parts = _parts(training, start, size)
    stage_1 = _stage_1(parts)
    aligner = _installed_aligner(parts)
    arms = {
        "slide encoder": _Arm("with", lambda slides: slide_tokens_of(aligner, slides)),
        "mean of tiles": _Arm("without", _mean_of_tiles),
    }
    answers: dict[str, list[_Answered]] = {}
    aligned: list[tuple[str, Alignment]] = list(stage_1)
    for name, arm in arms.items():
        model, states = _trained(parts, arm)
        aligned += [(f"{name}: {state}", found) for state, found in states]
        answers[name] = _answers(model, parts, arm)
    tables = _without_table(answers, size), _alignment_table(aligned, size)
    for table, file in zip(tables, (WITHOUT_FILE, ALIGNMENT_FILE), strict=True):
        table.write(out / file)
    return tables


def _parts(training: DemoTraining, start: InstalledModel, size: AblationSize) -> _Parts:
    weights = start.folder / training.manifest.first_input.tile_encoder.weights

    def bank(folder: str, slides: int, first_seed: int) -> list[BankedSlide]:
        where = training.work / folder
        return make_slide_bank(where, training.manifest, weights, slides, first_seed, training.processes)

    if size.step_tokens is not None:
        training = replace(training, recipe=replace(training.recipe, step_tokens=size.step_tokens))
    slides = bank("slide-bank", size.training_slides, FIRST_SLIDE_SEED)
    held_out = bank("held-out-bank", size.held_out_slides, FIRST_HELD_OUT_SEED)
    return _Parts(training, start, size, demo_tokenizer(), slides, held_out)


@dataclass(frozen=True)
class _Arm:
    """`rows` makes what the projector gets: float16 [slides, rows, width]."""

    name: str
    rows: Callable[[Sequence[BankedSlide]], Tensor]


def _mean_of_tiles(slides: Sequence[BankedSlide]) -> Tensor:
    """One row a slide, as the slide stage `mean` makes it."""
    means = [slide.features.mean(axis=0, dtype=np.float64) for slide in slides]
    return torch.from_numpy(np.stack(means)[:, None].astype(np.float16))


def _installed_aligner(parts: _Parts) -> SlideTextAligner:
    spec = parts.training.manifest.longnet_pool()
    aligner = SlideTextAligner(spec, parts.tokenizer.get_vocab_size())
    weights = load_file(parts.start.folder / spec.weights)
    aligner.slide_encoder.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return aligner


def _stage_1(parts: _Parts) -> list[tuple[str, Alignment]]:
    """A new slide encoder before and after stage 1, in the space that it shares with reports there."""
    recipe, spec = parts.training.recipe, parts.training.manifest.longnet_pool()
    torch.manual_seed(0)
    aligner = SlideTextAligner(spec, parts.tokenizer.get_vocab_size())
    before = _shared_space(aligner, parts)
    settings = parts.size.of(recipe.align_slides, "ablation-align-slides")
    batch = min(recipe.align_batch, 2 * len(parts.slides))
    task = AlignmentTask(parts.slides, parts.tokenizer, spec.slide_tokens, batch, settings.seed)
    run_stage(aligner, task, settings, parts.folder / settings.stage)
    return [("before stage 1, shared space", before), ("after stage 1, shared space", _shared_space(aligner, parts))]


@torch.inference_mode()
def _shared_space(aligner: SlideTextAligner, parts: _Parts) -> Alignment:
    aligner.eval()
    slides = _one_of_each_report(parts.held_out)
    tokens = slide_tokens_of(aligner, slides).float().mean(dim=1)
    ids = [_ids(parts.tokenizer, report(slide.truth)) for slide in slides]
    starts = torch.tensor([0, *np.cumsum([len(one) for one in ids])[:-1]])
    words = aligner.words(torch.tensor([word for one in ids for word in one]), starts)
    found = align(aligner.to_shared(tokens).numpy(), aligner.text_to_shared(words).numpy())
    aligner.train()
    return found


def _trained(parts: _Parts, arm: _Arm) -> tuple[SlideLanguageModel, list[tuple[str, Alignment]]]:
    """Stages 2 and 3 from a new projector on, with the alignment before and after each."""
    recipe = parts.training.recipe
    torch.manual_seed(0)
    model = SlideLanguageModel(
        llama_shape(recipe, parts.tokenizer), parts.training.manifest.projector_width, scaffold=False
    )
    new_projector = {name: value.clone() for name, value in model.mm_projector.state_dict().items()}
    load_published(model, parts.start.folder / parts.start.manifest.llm.path)
    model.mm_projector.load_state_dict(new_projector)
    rng = np.random.default_rng([recipe.align_features.seed, 4])
    views = [random_view(slide, rng) for slide in parts.slides for _ in range(recipe.views_per_slide)]
    shown = TokenizedSlides(arm.rows(views), tuple(view.truth for view in views))
    states = [("before stage 2", _embedding_space(model, parts, arm))]
    stages: tuple[tuple[str, LoopSettings, tuple[str, ...]], ...] = (
        ("after stage 2", recipe.align_features, ("mm_projector",)),
        ("after stage 3", recipe.instruct, ("mm_projector", "llama")),
    )
    for state, settings, trained in stages:
        own = parts.size.of(settings, f"ablation-{arm.name}-{settings.stage}")
        task = SlideTask(recipe.mix(own, recipe.closed_on_slides), parts.tokenizer, shown, recipe.token_noise)
        train_only(model, *trained)
        run_stage(model, task, own, parts.folder / own.stage)
        states.append((state, _embedding_space(model, parts, arm)))
    return model, states


@torch.inference_mode()
def _embedding_space(model: SlideLanguageModel, parts: _Parts, arm: _Arm) -> Alignment:
    """The mean of a slide's projected rows beside the mean of its report's token embeddings."""
    slides = _one_of_each_report(parts.held_out)
    rows = arm.rows(slides).float()
    padded = torch.nn.functional.pad(rows, (0, model.projector_width - rows.shape[-1]))
    projected = model.mm_projector(padded).mean(dim=1)
    embedding = model.llama.model.embed_tokens
    texts = [embedding(torch.tensor(_ids(parts.tokenizer, report(slide.truth)))).mean(dim=0) for slide in slides]
    return align(projected.float().numpy(), torch.stack(texts).float().numpy())


def _one_of_each_report(slides: Sequence[BankedSlide]) -> list[BankedSlide]:
    """Slides of equal reports could not be told apart by them."""
    return list({report(slide.truth): slide for slide in slides}.values())


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


@dataclass(frozen=True)
class _Answered:
    slide: int
    topic: str
    right: bool


def _answers(model: SlideLanguageModel, parts: _Parts, arm: _Arm) -> list[_Answered]:
    """Two closed questions on each attribute of each held-out slide: the most likely first token of all."""
    rows = arm.rows(parts.held_out)
    opening = slide_opening(TEMPLATE, rows.shape[1])
    asked = [(number, question) for number, slide in enumerate(parts.held_out) for question in _questions(slide)]
    found = []
    for first in range(0, len(asked), _ROWS_AT_ONCE):
        batch = asked[first : first + _ROWS_AT_ONCE]
        said = _first_tokens(
            model, parts.tokenizer, opening, [question for _, question in batch], rows[[n for n, _ in batch]]
        )
        found += [
            _Answered(number, question.topic, text == question.answer)
            for (number, question), text in zip(batch, said, strict=True)
        ]
    return found


def _questions(slide: BankedSlide) -> list[Question]:
    rng = np.random.default_rng([slide.truth.seed, 8])
    return [make(topic, slide.truth, SEEN, rng) for topic in ATTRIBUTES for make in (letter_question, yes_no_question)]


@torch.inference_mode()
def _first_tokens(
    model: SlideLanguageModel, tokenizer: Tokenizer, opening: str, questions: Sequence[Question], rows: Tensor
) -> list[str]:
    """What would be said first, as text."""
    model.eval()
    told = [tokenize_conversation(tokenizer, [one], opening=opening, prompt_weight=0.0) for one in questions]
    # The answer's first token is the first that is a target; what stands before it is the prompt.
    prompts = [one.ids[: next(place for place, weight in enumerate(one.weights) if weight)] for one in told]
    ids = torch.zeros((len(prompts), max(map(len, prompts))), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
    last = model.states(ids, rows.float())[-1][torch.arange(len(prompts)), torch.tensor([len(p) - 1 for p in prompts])]
    tokens = model.logits(last).argmax(dim=-1)
    return [tokenizer.decode([int(token)]).strip() for token in tokens]


def _without_table(answers: Mapping[str, Sequence[_Answered]], size: AblationSize) -> AblationTable:
    names = list(answers)
    whole, without = (answers[name] for name in names)
    topics = ["all", *(topic.name for topic in ATTRIBUTES)]
    rows, numbers = [], []
    for topic in topics:
        pairs = [(a, b) for a, b in zip(whole, without, strict=True) if topic in ("all", a.topic)]
        shares = [sum(pair[side].right for pair in pairs) / len(pairs) for side in (0, 1)]
        intervals = [wilson(sum(pair[side].right for pair in pairs), len(pairs)) for side in (0, 1)]
        differences = [float(a.right) - float(b.right) for a, b in pairs]
        loss = bootstrap_by_patient(differences, [str(a.slide) for a, _ in pairs])
        assert loss is not None, "there are slides"
        cells = [
            f"{share:.3f} ({one.low:.2f}–{one.high:.2f})" if one else f"{share:.3f}"
            for share, one in zip(shares, intervals, strict=True)
        ]
        mean = sum(differences) / len(differences)
        rows.append([topic, "", str(len(pairs)), *cells, f"{mean:+.3f} ({loss.low:+.2f}–{loss.high:+.2f})"])
        numbers.append({"topic": topic, "questions": len(pairs), **dict(zip(names, shares, strict=True)), "loss": mean})
    notes = [
        f"Projector new and trained for the same steps in both, {size.share:g} of the recipe's "
        f"({_step_size(size)}), on "
        f"{size.training_slides} slides; {size.held_out_slides} others are asked about. The language model was the "
        "installed one, which had learned with a slide encoder: that favours the arm that has it.",
        f"Only {NECROSIS.name} depends on where tiles lie; all else a mean over tiles can hold.",
    ]
    head = ["topic", "", "closed questions", *names, "loss without"]
    return AblationTable("The demo's slide encoder removed, projector trained anew", notes, head, rows, numbers)


def _step_size(size: AblationSize) -> str:
    return "as large ones" if size.step_tokens is None else f"of {size.step_tokens:,} tokens"


def _alignment_table(found: Sequence[tuple[str, Alignment]], size: AblationSize) -> AblationTable:
    notes = [
        f"Of {size.held_out_slides} held-out slides one for each report; {size.share:g} of the recipe's steps "
        f"({_step_size(size)}). Stage 1 "
        "in the space where its loss brings both together; stages 2 and 3 in the language model's embeddings, mean of "
        "the projected rows and of the report's tokens: nothing in their loss asks for that.",
    ]
    return alignment_table("Slides beside their reports, stage by stage", found, notes)
