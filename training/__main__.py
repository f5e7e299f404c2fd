"""`python -m training …`: trains the demo model, whole or a stage at a time. See training.train_demo."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from model_store.errors import ModelError
from training.errors import TrainingError
from training.hierarchical_demo import write_hierarchical_demo
from training.train_demo import (
    DemoTraining,
    align_features,
    align_slides,
    draw_slides,
    export,
    export_published,
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
}


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0, or 1 with one sentence for the person at the terminal."""
    options = _parser().parse_args(arguments)
    training = DemoTraining(options.work, options.processes)
    try:
        if options.stage in STAGES:
            STAGES[options.stage](training)
        elif options.stage == "hierarchical-demo":
            folder = write_hierarchical_demo(options.out or options.work / "demo-hierarchical").folder
            print(f"The model is in {folder}.")
        elif options.stage == "published":
            print(f"The checkpoint is in {export_published(training, options.out or options.work / 'published')}.")
        else:
            print(f"The model is in {export(training, options.out or options.work / 'demo').folder}.")
    except (ModelError, TrainingError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description="Trains Eyepiece's demo model.")
    parser.add_argument(
        "stage",
        choices=[*STAGES, "demo", "published", "hierarchical-demo"],
        help="one stage, with those it needs; demo: all of them, and the model; published: its LLaVA checkpoint; "
        "hierarchical-demo: a model of levels, which is not trained",
    )
    parser.add_argument(
        "--work", type=Path, default=Path("data/training"), help="results and checkpoints of the stages"
    )
    parser.add_argument("--out", type=Path, help="the folder to write; a model's is named as the model is")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="how many draw and encode slides")
    return parser


if __name__ == "__main__":
    sys.exit(main())
