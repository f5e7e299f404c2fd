"""`eyepiece make-slide`: a synthetic slide and what is true of it, so that nobody needs a patient's to try Eyepiece.

    out.svs    the slide
    out.json   {seed, attributes, questions: [{task, topic, kind, question, answer}, …]}

Closed answers are exactly a letter, Yes or No. The words of attributes are those that answers use; null where a slide
has no grade or no necrosis.
"""

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.commands.outcome import CommandError, ExitCode

if TYPE_CHECKING:
    from synthetic.slide_truth import SlideTruth

SEEDS = 2**31


@dataclass(frozen=True)
class SlideOptions:
    """What to draw; None is a seed at random, the usual field of view, the stain that goes with the seed."""

    path: Path
    seed: int | None = None
    mpp: float = 0.5
    width_px: int | None = None
    height_px: int | None = None
    stain_seed: int | None = None

    @property
    def truth_path(self) -> Path:
        """Where the truth goes: beside the slide."""
        return self.path.with_suffix(".json")


def make_slide(options: SlideOptions) -> "SlideTruth":
    """Writes both files or neither; the same options draw the same slide. Returns what is true of it.

    Raises:
        CommandError: one of the files is there already, or the seed is one that training may have seen.
    """
    from synthetic.slide_truth import FIRST_TRAINING_SEED
    from synthetic.write_slide import write_synthetic_slide  # numpy, OpenCV, tifffile

    _refuse_taken(options)
    seed = secrets.randbelow(SEEDS) if options.seed is None else options.seed
    if not 0 <= seed < FIRST_TRAINING_SEED:
        raise CommandError(f"A seed is at least 0 and below {FIRST_TRAINING_SEED}.", ExitCode.USAGE)
    options.path.parent.mkdir(parents=True, exist_ok=True)
    truth = write_synthetic_slide(
        options.path,
        seed=seed,
        width_px=options.width_px,
        height_px=options.height_px,
        mpp=options.mpp,
        stain_seed=options.stain_seed,
    )
    try:
        _write_truth(options.truth_path, truth)
    except BaseException:
        options.path.unlink()
        raise
    return truth


def answer_key(truth: "SlideTruth") -> dict[str, Any]:
    """The document beside a slide."""
    from synthetic.questions.slide_questions import slide_questions

    questions = [
        {"task": one.task, "topic": one.topic, "kind": one.kind, "question": one.text, "answer": one.answer}
        for one in slide_questions(truth)
    ]
    return {"seed": truth.seed, "attributes": _attributes(truth), "questions": questions}


def _attributes(truth: "SlideTruth") -> dict[str, Any]:
    from synthetic.questions.topics import ATTRIBUTES

    values = {name: value for name, value in vars(truth).items() if name != "seed"}
    words = {topic.attribute: topic.phrase(truth) for topic in ATTRIBUTES if values[topic.attribute] is not None}
    return values | words


def _refuse_taken(options: SlideOptions) -> None:
    if options.path == options.truth_path:
        raise CommandError(f"{options.path} is the name of the truth: name the slide like sample.svs.", ExitCode.USAGE)
    for path in (options.path, options.truth_path):
        if path.exists():
            raise CommandError(f"{path} exists already: name a new file.", ExitCode.USAGE)


def _write_truth(path: Path, truth: "SlideTruth") -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(answer_key(truth), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
