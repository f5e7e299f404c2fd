"""`eyepiece eval-demo`: how well a model answers about slides that it never saw, all through the HTTP API.

    plan_exam          which questions about which slides, by condition     evaluation/exam.py
    → ready_slides     drawn, uploaded, encoded; others made of features    server/commands/eval_slides.py
    → ask              each dialogue in a conversation of its own           here
    → judge            what the text says, beside the truth                 evaluation/judge.py
    → check            what has to be reached                               evaluation/criteria.py
    → table            by topic, beside what needs no look                  evaluation/table.py

Questions about early slides are asked while later ones are encoded.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from evaluation.criteria import FULL, SHORT, Thresholds, check, missed
from evaluation.exam import SHORT_SIZE, Dialogue, ExamSize, Specimen, full_size, plan_exam, specimens_of
from evaluation.judge import Judgement, judge
from evaluation.table import table_document, table_text
from server.commands.api_client import ApiClient
from server.commands.demo import running_server
from server.commands.eval_slides import ReadySlide, ready_slides
from server.commands.outcome import CommandError, ExitCode
from server.machine.redis_server import free_loopback_port

# vLLM answers several questions in hardly more time than one.
QUESTIONS_AT_ONCE: Final = 8
# A language model that is away for a moment is waited for; the examination is of the answers.
PATIENCE_S: Final = 180.0
_WORTH_WAITING: Final = ("language_model_unavailable", "region_not_ready")


@dataclass(frozen=True)
class EvalOptions:
    """`url` None starts a server of its own, with its state in `data_dir` or a folder that is removed afterwards."""

    slides: int
    first_seed: int
    short: bool = False
    url: str | None = None
    key: str = ""
    data_dir: Path | None = None
    json_path: Path | None = None

    @property
    def size(self) -> ExamSize:
        """How many slides in which condition."""
        return SHORT_SIZE if self.short else full_size(self.slides)

    @property
    def limits(self) -> Thresholds:
        """What has to be reached."""
        return SHORT if self.short else FULL


def eval_demo(options: EvalOptions) -> None:
    """The command: prints the table, writes the document.

    Raises:
        CommandError: the server refused something, or a threshold was missed.
    """
    started = time.monotonic()
    dialogues = plan_exam(options.size, options.first_seed)
    with examined_server(options) as client:
        judgements = hold_exam(client, dialogues, Console(stderr=True))
    criteria = check(judgements, options.limits)
    print(table_text(judgements, criteria))
    print(f"\n{_turns(dialogues)} questions in {time.monotonic() - started:.0f} s, seeds from {options.first_seed} on.")
    if options.json_path is not None:
        options.json_path.write_text(json.dumps(table_document(judgements, criteria), indent=2) + "\n")
    if failures := missed(criteria):
        raise CommandError(f"Not reached: {'; '.join(failures)}.", ExitCode.FAILED)


def hold_exam(client: ApiClient, dialogues: Sequence[Dialogue], console: Console) -> list[Judgement]:
    """Puts every dialogue to the server; `console` shows how far it got. The judgements are in no order.

    Raises:
        CommandError: a slide failed, or a question was refused.
    """
    by_specimen: dict[Specimen, list[Dialogue]] = {specimen: [] for specimen in specimens_of(dialogues)}
    for dialogue in dialogues:
        by_specimen[dialogue.specimen].append(dialogue)
    with (
        tempfile.TemporaryDirectory(prefix="eyepiece-eval-") as folder,
        _bars(console, slides=len(by_specimen), questions=_turns(dialogues)) as bars,
    ):
        slides = bars.counted(ready_slides(client, list(by_specimen), Path(folder)))
        return _ask_all(client, slides, by_specimen, bars)


def ask_dialogue(client: ApiClient, slide_id: str, dialogue: Dialogue) -> list[Judgement]:
    """Asks turn by turn, each answer going into the next turn's conversation; the scored turns' judgements.

    Raises:
        CommandError: the server refused a question, or the language model was away for longer than `PATIENCE_S`.
    """
    judgements: list[Judgement] = []
    conversation: dict[str, str] = {}
    for asked in dialogue.asked():
        done = answer_patiently(client, slide_id, {"question": asked.question.text, **conversation})
        conversation = {"conversation_id": done["conversation_id"]}
        if asked.turn >= dialogue.first_scored:
            judgements += judge(asked, done["answer"])
    return judgements


def answer_patiently(client: ApiClient, slide_id: str, question: dict[str, Any]) -> dict[str, Any]:
    """The answer, once the language model, or the region that is asked about, is there.

    Raises:
        CommandError: the question was refused, or that took longer than `PATIENCE_S`.
    """
    ends_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            return client.answer(slide_id, question)
        except CommandError as error:
            if error.problem_code not in _WORTH_WAITING or error.retry_after_s is None:
                raise
            if time.monotonic() + error.retry_after_s > ends_at:
                raise
            time.sleep(error.retry_after_s)


def _ask_all(
    client: ApiClient,
    slides: Iterable[ReadySlide],
    by_specimen: dict[Specimen, list[Dialogue]],
    bars: "_Bars",
) -> list[Judgement]:
    """Asks about each slide from when it is ready; the first refusal ends all that has not begun."""
    threads = ThreadPoolExecutor(QUESTIONS_AT_ONCE)
    futures: list[Future[list[Judgement]]] = []
    try:
        for slide in slides:
            for dialogue in by_specimen[slide.specimen]:
                future = threads.submit(ask_dialogue, client, slide.slide_id, dialogue)
                future.add_done_callback(bars.advance_questions(len(dialogue.questions)))
                futures.append(future)
        return [judgement for future in futures for judgement in future.result()]
    finally:
        threads.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class _Bars:
    """Slides that are ready, questions that are answered."""

    progress: Progress
    slides: TaskID
    questions: TaskID

    def counted(self, slides: Iterable[ReadySlide]) -> Iterator[ReadySlide]:
        """The slides, each counted as it comes."""
        for slide in slides:
            self.progress.advance(self.slides)
            yield slide

    def advance_questions(self, count: int) -> Callable[[object], None]:
        """What to call when a dialogue is through."""
        return lambda _: self.progress.advance(self.questions, count)


@contextmanager
def _bars(console: Console, slides: int, questions: int) -> Iterator[_Bars]:
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        yield _Bars(
            progress, progress.add_task("slides", total=slides), progress.add_task("questions", total=questions)
        )


@contextmanager
def examined_server(options: EvalOptions) -> Iterator[ApiClient]:
    """A client to the server that is named, or to one that is started for as long."""
    with ExitStack() as resources:
        url = options.url
        if url is None:
            temporary = tempfile.TemporaryDirectory(prefix="eyepiece-eval-data-")
            data_dir = options.data_dir or Path(resources.enter_context(temporary))
            port = free_loopback_port()
            resources.enter_context(running_server(data_dir, port))
            url = f"http://127.0.0.1:{port}"
        yield resources.enter_context(ApiClient(url, options.key))


def _turns(dialogues: Iterable[Dialogue]) -> int:
    return sum(len(dialogue.questions) for dialogue in dialogues)
