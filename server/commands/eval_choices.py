"""`eyepiece eval-choices`: whether answers with choices are as right as those without, all through the HTTP API."""

import json
import math
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from evaluation.choices import ClosedPair, choices_of, closed_questions, score_choices
from evaluation.exam import Specimen
from evaluation.judge import Asked
from server.commands.api_client import ApiClient
from server.commands.eval_demo import QUESTIONS_AT_ONCE, EvalOptions, answer_patiently, examined_server
from server.commands.eval_slides import ready_slides
from server.commands.outcome import CommandError, ExitCode


def eval_choices(options: EvalOptions) -> None:
    """The command: prints the score, writes the document.

    Raises:
        CommandError: the server refused something, an answer was no choice, or choices cost too much.
    """
    started = time.monotonic()
    with examined_server(options) as client:
        pairs = list(ask_pairs(client, options.slides, options.first_seed))
    score = score_choices(pairs)
    print(score.text())
    print(f"{options.slides} slides, seeds from {options.first_seed} on, in {time.monotonic() - started:.0f} s.")
    if options.json_path is not None:
        rows = [{"question": it.asked.question.text, "free": it.free, "chosen": it.chosen} for it in pairs]
        options.json_path.write_text(json.dumps({"score": asdict(score), "answers": rows}, indent=2) + "\n")
    if not score.is_reached:
        raise CommandError("Answers with choices are less often right.", ExitCode.FAILED)


def ask_pairs(client: ApiClient, slides: int, first_seed: int) -> Iterator[ClosedPair]:
    """Every closed question of every slide, as it gets ready, both ways and each in a conversation of its own.

    Raises:
        CommandError: a slide failed, a question was refused, or an answer was no choice.
    """
    specimens = [Specimen(seed) for seed in range(first_seed, first_seed + slides)]
    with (
        tempfile.TemporaryDirectory(prefix="eyepiece-eval-") as folder,
        ThreadPoolExecutor(QUESTIONS_AT_ONCE) as threads,
    ):
        for slide in ready_slides(client, specimens, Path(folder)):
            asked = closed_questions(slide.specimen.seed)
            yield from threads.map(lambda it, slide=slide: _ask(client, slide.slide_id, it), asked)


def _ask(client: ApiClient, slide_id: str, asked: Asked) -> ClosedPair:
    choices = choices_of(asked)
    body = {"question": asked.question.text}
    free = answer_patiently(client, slide_id, body)
    chosen = answer_patiently(client, slide_id, {**body, "choices": list(choices)})
    total = math.fsum(it["probability"] for it in chosen["choices"])
    if chosen["answer"] not in choices or not math.isclose(total, 1, abs_tol=1e-9):
        raise CommandError("An answer was none of its choices, or their shares are not 1 together.", ExitCode.FAILED)
    return ClosedPair(asked, free["answer"], chosen["answer"])
