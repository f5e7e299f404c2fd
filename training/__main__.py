"""`python -m training …`: trains the demo model, whole or a stage at a time. See training.train_demo."""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from model_store.errors import ModelError
from model_store.installed import InstalledModel, open_model
from model_store.packaged_models import PACKAGED
from training.errors import TrainingError
from training.export_demo import demo_start, export_demo, export_preferred, export_published
from training.familiar_slides import record_familiarity
from training.hierarchical_demo import write_hierarchical_demo
from training.honest_demo import answer_honestly
from training.pair_commands import add_pair_arguments, write_pairs_from
from training.prefer_demo import ARMS
from training.slide_ablations import AblationSize, ablate_slide_encoder
from training.train_demo import (
    DemoTraining,
    align_features,
    align_slides,
    draw_slides,
    instruct,
    train_language,
    train_tiles,
)

STAGES: Final[dict[str, Callable[[DemoTraining], object]]] = {
    "tiles": train_tiles,
    "language": train_language,
    "draw-slides": draw_slides,
    "align-slides": align_slides,
    "align-features": align_features,
    "instruct": instruct,
    "honest": lambda training: answer_honestly(training, None, 0),
}

_COMMANDS: Final = (
    "prefer",
    "ablations",
    "pairs",
    "demo",
    "familiarity",
    "published",
    "hierarchical-demo",
)


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0, or 1 with one sentence for the person at the terminal."""
    options = _parser().parse_args(arguments)
    training = DemoTraining(options.work, options.processes)
    try:
        if options.stage == "prefer":
            _prefer(training, options)
        elif options.stage == "ablations":
            _ablate(training, options)
        elif options.stage == "pairs":
            write_pairs_from(options)
        elif options.stage in STAGES:
            STAGES[options.stage](training)
        elif options.stage == "familiarity":
            folder = options.out or options.work / "demo"
            record_familiarity(open_model(folder.parent, folder.name), training.recipe.familiar_slides)
            print(f"The statistics are in {folder}.")
        elif options.stage == "hierarchical-demo":
            folder = write_hierarchical_demo(options.out or options.work / "demo-hierarchical").folder
            print(f"The model is in {folder}.")
        elif options.stage == "published":
            print(f"The checkpoint is in {export_published(training, options.out or options.work / 'published')}.")
        else:
            _demo(training, options)
    except (ModelError, TrainingError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _demo(training: DemoTraining, options: argparse.Namespace) -> None:
    start, folder = _start_and_folder(training, options)
    training = _with_slides(training, options)
    if options.steps:
        honest = replace(training.recipe.honest, steps=options.steps)
        training = replace(training, recipe=replace(training.recipe, honest=honest))
    print(f"The model is in {export_demo(training, start, options.seed, folder).folder}.")


def _prefer(training: DemoTraining, options: argparse.Namespace) -> None:
    start, folder = _start_and_folder(training, options)
    if options.steps:
        prefer = replace(training.recipe.prefer, steps=options.steps)
        training = replace(training, recipe=replace(training.recipe, prefer=prefer))
    training = _with_slides(training, options)
    written = export_preferred(training, start, options.arm, options.seed, folder)
    print(f"The model is in {written.folder}.")


def _with_slides(training: DemoTraining, options: argparse.Namespace) -> DemoTraining:
    if not options.slides:
        return training
    return replace(training, recipe=replace(training.recipe, prefer_slides=options.slides))


def _start_and_folder(training: DemoTraining, options: argparse.Namespace) -> tuple[InstalledModel | None, Path]:
    folder = options.out or training.work / "demo"
    if options.start and folder.resolve() == options.start.resolve():
        raise TrainingError("The model would be written over the one that it begins with: name another folder, --out.")
    return demo_start(options.start) if options.start else None, folder


def _ablate(training: DemoTraining, options: argparse.Namespace) -> None:
    start, out = demo_start(options.start or PACKAGED / "demo"), options.out or training.work / "ablations"
    slides = options.slides or training.recipe.training_slides
    size = AblationSize(options.share, slides, options.held_out, options.step_tokens)
    for table in ablate_slide_encoder(training, start, size, out):
        print(f"{table.title}\n" + "\n".join("\t".join(row) for row in (table.head, *table.rows)))
    print(f"The tables are in {out}.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description="Trains Eyepiece's demo model.")
    parser.add_argument(
        "stage",
        choices=[*STAGES, *_COMMANDS],
        help="one stage, with those it needs; prefer: preference tuning, and the model; "
        "ablations: the slide encoder removed, and alignment by stage; pairs: preference pairs from a "
        "feedback export or a judge; demo: all stages of the model that ships, and the model; "
        "familiarity: its statistics of familiar tissue anew, in its folder; published: its LLaVA "
        "checkpoint; hierarchical-demo: a model of levels, which is not trained",
    )
    parser.add_argument(
        "--work", type=Path, default=Path("data/training"), help="results and checkpoints of the stages"
    )
    parser.add_argument("--out", type=Path, help="the folder to write; a model's is named as the model is")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="how many draw and encode slides")
    preference = parser.add_argument_group("demo, prefer")
    preference.add_argument(
        "--start", type=Path, help="an installed demo model: demo teaches it honest answers, prefer goes on from it"
    )
    preference.add_argument(
        "--arm",
        choices=ARMS,
        default="preference",
        help="of prefer; supervised, shuffled: controls",
    )
    preference.add_argument("--seed", type=int, default=0, help="of the stage; slides and pairs depend on it")
    preference.add_argument("--steps", type=int, help="of prefer, or of demo's honest answers, instead of the recipe's")
    preference.add_argument("--slides", type=int, help="training slides, instead of the recipe's")
    ablations = parser.add_argument_group("ablations")
    ablations.add_argument("--share", type=float, default=1.0, help="of the recipe's steps")
    ablations.add_argument("--held-out", type=int, default=100, help="slides that are asked about")
    ablations.add_argument("--step-tokens", type=int, help="of a step, instead of the recipe's")
    add_pair_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
