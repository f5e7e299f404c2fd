"""`eyepiece eval-regions`: whether a model tells which quadrant of a slide has necrosis, all through the HTTP API."""

import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from evaluation.exam import Specimen
from evaluation.quadrants import (
    QUESTION,
    AskedQuadrant,
    QuadrantAnswer,
    QuadrantScore,
    quadrants_of,
    read_yes_no,
    score_quadrants,
)
from server.commands.api_client import ApiClient
from server.commands.eval_demo import QUESTIONS_AT_ONCE, EvalOptions, answer_patiently, examined_server
from server.commands.eval_slides import ReadySlide, ready_slides
from server.commands.outcome import CommandError, ExitCode

_TOO_SMALL = "region_too_small"


def eval_regions(options: EvalOptions) -> None:
    """The command: prints the score, writes the document.

    Raises:
        CommandError: the server refused something, or too few quadrants were answered right.
    """
    started = time.monotonic()
    with examined_server(options) as client:
        answers = list(ask_quadrants(client, options.slides, options.first_seed))
    score = score_quadrants(answers)
    print(score.text())
    missing = 4 * options.slides - len(answers)
    print(
        f"{options.slides} slides, seeds from {options.first_seed} on, in {time.monotonic() - started:.0f} s; "
        f"{missing} quadrants have too few tiles to be asked about."
    )
    if answers:
        waits = sorted(answer.region_ms for answer in answers)
        print(f"A region was made and found in {waits[len(waits) // 2]:.0f} ms (median), {waits[-1]:.0f} ms at most.")
    for answer in answers:
        if not answer.is_right:
            print(f"wrong: seed {answer.asked.seed}, {answer.asked.quadrant}, has it {answer.asked.has_necrosis}")
    if options.json_path is not None:
        options.json_path.write_text(json.dumps(document(score, answers), indent=2) + "\n")
    if not score.is_reached:
        raise CommandError("Too few quadrants were answered right.", ExitCode.FAILED)


def ask_quadrants(client: ApiClient, slides: int, first_seed: int) -> Iterator[QuadrantAnswer]:
    """Every quadrant that is large enough, as its slide gets ready; each in a conversation of its own.

    Raises:
        CommandError: a slide failed, or a question was refused.
    """
    specimens = [Specimen(seed) for seed in range(first_seed, first_seed + slides)]
    with (
        tempfile.TemporaryDirectory(prefix="eyepiece-eval-") as folder,
        ThreadPoolExecutor(min(4, QUESTIONS_AT_ONCE)) as threads,
    ):
        for slide in ready_slides(client, specimens, Path(folder)):
            asked = quadrants_of(slide.specimen.seed)
            for found in threads.map(lambda quadrant, slide=slide: _ask(client, slide, quadrant), asked):
                if found is not None:
                    yield found


def _ask(client: ApiClient, slide: ReadySlide, asked: AskedQuadrant) -> QuadrantAnswer | None:
    """None where the quadrant has too few tiles."""
    rectangle = dict(zip(("x", "y", "width", "height"), asked.box, strict=True))
    try:
        done = answer_patiently(client, slide.slide_id, {"question": QUESTION, "region": {"rectangle": rectangle}})
    except CommandError as error:
        if error.problem_code == _TOO_SMALL:
            return None
        raise
    return QuadrantAnswer(asked, read_yes_no(done["answer"]), done["timing"]["cache_ms"])


def document(score: QuadrantScore, answers: list[QuadrantAnswer]) -> dict[str, object]:
    """What is written as JSON."""
    return {"question": QUESTION, "score": asdict(score), "answers": [asdict(answer) for answer in answers]}
