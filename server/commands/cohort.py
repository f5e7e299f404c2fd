"""`eyepiece cohort run`: hundreds of slides times the same questions, into one table.

tables → every slide uploaded, or found, and encoded → questions, each answer on disk before it counts → answers.csv
"""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from evaluation.asking.http_call import Patience
from evaluation.asking.reply_log import ReplyLog
from evaluation.asking.run import Outcome, ask_all
from evaluation.cohort.answer_table import Cohort, write_answers
from evaluation.cohort.ask_cohort import CohortEyepiece, EncodedSlide
from evaluation.cohort.read_tables import CohortSlide, read_questions, read_slides
from server.commands.api_client import ApiClient
from server.commands.encode_for_model import ready_encoder, served_model
from server.commands.evaluate import evaluation_errors
from server.commands.evaluate_progress import progress_bar
from server.commands.find_slide import find_slide
from server.commands.outcome import CommandError, ExitCode
from server.commands.terminal import printable
from server.commands.upload import UploadOptions, upload_and_wait


@dataclass(frozen=True)
class CohortOptions:
    """`at_once` are slides that are sent and waited for together, and questions that are asked together."""

    slides: Path
    questions: Path
    out: Path
    base_url: str
    key: str = ""
    model: str | None = None
    at_once: int = 8
    timeout_s: float = 120.0


def run_cohort(options: CohortOptions) -> None:
    """The command. What was answered by the same model, encoder and wording is not asked again.

    Raises:
        CommandError: a table is not whole, the server refuses everything, or some rows have no answer; the table is
            written all the same in the last case.
    """
    with evaluation_errors():
        slides, questions = read_slides(options.slides), read_questions(options.questions)
        with ApiClient(options.base_url, options.key) as client:
            model = served_model([str(it["id"]) for it in client.models()], options.model)
            encoded, failed = _encoded(client, slides, model, options.at_once)
        cohort = Cohort(slides, questions, model, options.base_url.rstrip("/"), encoded, failed)
        outcome = _asked(cohort, options)
    for name, why in failed.items():
        print(printable(f"not encoded: {name}: {why}"))
    print(
        f"{outcome.answered} answered now, {outcome.before} before, {sum(outcome.failed.values())} failed, "
        f"{len(failed)} slides not encoded: {options.out / 'answers.csv'}"
    )
    if failed or outcome.failed:
        raise CommandError("Some rows have no answer; the same command asks for them again.", ExitCode.FAILED)


def _asked(cohort: Cohort, options: CohortOptions) -> Outcome:
    asks = cohort.asks()
    eyepiece = CohortEyepiece(options.base_url, options.key, Patience(options.timeout_s))
    with ReplyLog.open(options.out / "answers.jsonl") as log:
        try:
            with progress_bar("questions", len(asks)) as advance:
                return asyncio.run(ask_all(eyepiece.put, asks, log, at_once=options.at_once, on_reply=advance))
        finally:
            write_answers(options.out / "answers.csv", cohort, log.latest)


def _encoded(
    client: ApiClient, slides: Sequence[CohortSlide], model: str, at_once: int
) -> tuple[dict[str, EncodedSlide], dict[str, str]]:
    """The slides that are ready, and why the others are not, by name in the table's order."""
    encoded: dict[str, EncodedSlide] = {}
    failed: dict[str, str] = {}
    noting = threading.Lock()

    def make_ready(slide: CohortSlide) -> None:
        try:
            found = _on_server(client, slide)
            ready = EncodedSlide(slide.name, str(found["id"]), ready_encoder(client, found, model))
        except CommandError as error:
            if error.exit_code == ExitCode.UNREACHABLE:
                raise
            with noting:
                failed[slide.name] = error.problem_code or str(error)
        else:
            encoded[slide.name] = ready
        advance()

    with progress_bar("slides", len(slides)) as advance, ThreadPoolExecutor(at_once) as threads:
        list(threads.map(make_ready, slides))
    in_order = [slide.name for slide in slides]
    return encoded, {name: failed[name] for name in in_order if name in failed}


def _on_server(client: ApiClient, slide: CohortSlide) -> dict[str, object]:
    if slide.path is None:
        return find_slide(client, slide.known_as or "")
    return upload_and_wait(client, UploadOptions(slide.path), Console(quiet=True))
