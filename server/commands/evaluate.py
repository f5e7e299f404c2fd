"""`eyepiece evaluate`: the border between the command line and `evaluation/`.

ask     read the questions → prepare what is shown → put every question, reply by reply into the log
judge   collect the open answers → put each to the judge
score   logs → rows → numbers → results.json, numbers.csv, rows.csv, report.html
"""

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from evaluation.asking.conditions import AS_IS, BLANK, CONDITIONS, NO_SLIDE, WRONG_SAME, Ask, Condition, plan_asks
from evaluation.asking.http_call import Patience
from evaluation.asking.predicted import log_predictions
from evaluation.asking.reply_log import ReplyLog, read_log
from evaluation.asking.run import Budget, Outcome, ask_all
from evaluation.asking.targets import (
    ChatEndpoint,
    EyepieceTarget,
    Generation,
    PictureTarget,
    Target,
    View,
    reply_line,
)
from evaluation.benchmark.items import QuestionSet
from evaluation.benchmark.predictions import read_predictions
from evaluation.benchmark.read_json import json_lines, text_of
from evaluation.benchmark.read_set import READERS, read_set
from evaluation.errors import EvaluationError, TargetError
from evaluation.judging.judge import Answered, Judge
from evaluation.judging.prompts import OURS, read_prompts
from evaluation.metrics.nlu import NLU
from evaluation.metrics.retrieval import retrieve
from evaluation.report.write import terminal_text, write_report
from evaluation.run_folder import AskedTarget, RunFolder
from evaluation.scoring.projects import training_slides
from evaluation.scoring.rows import Extra
from evaluation.scoring.score_run import ScoreOptions, score_run
from server.commands.api_client import ApiClient
from server.commands.evaluate_progress import progress_bar
from server.commands.evaluate_slides import SlidePaths, eyepiece_slides, pictures_of, slide_paths
from server.commands.outcome import CommandError, ExitCode

# A wrong slide's answers and those without one are what a judge's number has to be read beside; an Eyepiece is never
# asked without one, so a blank one is in its place.
JUDGED: Final[tuple[Condition, ...]] = (AS_IS, NO_SLIDE, BLANK, WRONG_SAME)


@dataclass(frozen=True)
class AskOptions:
    """One of `eyepiece`, `endpoint` and `predictions` says who is asked. `conditions` None are all it can be."""

    questions: Path
    out: Path
    name: str
    layout: str | None = None
    eyepiece: str | None = None
    endpoint: str | None = None
    predictions: Path | None = None
    model: str | None = None
    view: View = "thumbnail"
    slides: Path | None = None
    conditions: tuple[str, ...] | None = None
    paraphrases: Path | None = None
    limit: int | None = None
    at_once: int = 8
    budget: Budget = field(default_factory=Budget)
    temperature: float | None = None
    max_tokens: int | None = None
    timeout_s: float = 120.0
    seed: int = 0
    note: str = ""
    key: str = ""
    endpoint_key: str = ""


@dataclass(frozen=True)
class JudgeOptions:
    """`conditions` None are `JUDGED`."""

    run: Path
    endpoint: str
    model: str
    prompts: Path | None = None
    conditions: tuple[str, ...] | None = None
    repeats: int = 3
    max_tokens: int = 4096
    timeout_s: float = 120.0
    at_once: int = 8
    key: str = ""


@dataclass(frozen=True)
class ScoreCommand:
    """`bertscore` is a folder with a BERT."""

    run: Path
    prompts: Path | None = None
    training: tuple[Path, ...] = ()
    papers: tuple[str, ...] = tuple(NLU)
    bertscore: Path | None = None
    bertscore_layer: int = 9


def ask(options: AskOptions) -> None:
    """The command.

    Raises:
        CommandError: the questions, the slides or the model are not what they should be, or some got no answer.
    """
    with evaluation_errors():
        _require_one(options)
        questions = limited_set(read_set(options.questions, _known_layout(options.layout)), options.limit)
        folder = RunFolder(options.out)
        folder.keep_set(questions)
        for note in questions.notes:
            print(f"odd: {note}")
        if options.predictions is not None:
            _take_predictions(folder, questions, options)
            return
        outcome = _ask_model(folder, questions, options)
    print(
        f"{options.name}: {outcome.answered} answered now, {outcome.before} before, "
        f"{sum(outcome.failed.values())} failed, {outcome.not_asked} not asked for want of budget."
    )
    if outcome.failed:
        counted = ", ".join(f"{reason} {count}" for reason, count in sorted(outcome.failed.items()))
        raise CommandError(f"No answer: {counted}. The same command asks for them again.", ExitCode.FAILED)


def _ask_model(folder: RunFolder, questions: QuestionSet, options: AskOptions) -> Outcome:
    wordings = _paraphrases(options.paraphrases)
    wanted = _conditions(options.conditions, CONDITIONS)
    with ExitStack() as resources:
        target, conditions = _target(questions, wanted, wordings, options, resources)
        unavailable = tuple(condition for condition in wanted if condition not in conditions)
        folder.keep_target(AskedTarget(options.name, target.record, conditions, unavailable, options.seed, wordings))
        plan = plan_asks(questions, conditions, options.seed, wordings)
        log = resources.enter_context(ReplyLog.open(folder.answers_path(options.name)))
        if log.cut_bytes:
            print(f"{options.name}: a reply that was cut off when the last run ended is asked for again.")
        put = partial(reply_line, target)
        with progress_bar(options.name, len(plan.asks)) as advance:
            return asyncio.run(
                ask_all(put, plan.asks, log, budget=options.budget, at_once=options.at_once, on_reply=advance)
            )


def _target(
    questions: QuestionSet,
    wanted: Sequence[Condition],
    wordings: dict[str, str],
    options: AskOptions,
    resources: ExitStack,
) -> tuple[Target, tuple[Condition, ...]]:
    """Who is asked, with all that will be shown made ready, and the conditions that it can be asked under."""
    patience = Patience(options.timeout_s)
    if options.eyepiece is not None:
        conditions = tuple(condition for condition in wanted if condition != NO_SLIDE)
        asks = plan_asks(questions, conditions, options.seed, wordings).asks
        client = resources.enter_context(ApiClient(options.eyepiece, options.key))
        ids, model = eyepiece_slides(client, asks, paths_of_slides(questions, options), options.model)
        generation = Generation(options.temperature, options.max_tokens, None)
        return EyepieceTarget(options.eyepiece, options.key, model, ids, generation, patience), conditions
    generation = Generation(0.0 if options.temperature is None else options.temperature, options.max_tokens or 512)
    endpoint = ChatEndpoint(options.endpoint or "", options.model or "", options.endpoint_key, generation, patience)
    shown = pictures_of(paths_of_slides(questions, options), options.view) if options.view != "none" else lambda _: ()
    target = PictureTarget(endpoint, options.view, shown, options.note)
    return target, tuple(condition for condition in wanted if condition in target.conditions)


def _take_predictions(folder: RunFolder, questions: QuestionSet, options: AskOptions) -> None:
    assert options.predictions is not None
    found = read_predictions(options.predictions)
    asks: Sequence[Ask] = plan_asks(questions, [AS_IS], options.seed).asks
    record = log_predictions(folder, options.name, found, asks, options.note)
    print(f"{options.name}: " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in record.items()) + ".")


def judge(options: JudgeOptions) -> None:
    """The command.

    Raises:
        CommandError: the run or the judge is not what it should be.
    """
    with evaluation_errors():
        folder = RunFolder(options.run)
        conditions = _conditions(options.conditions, JUDGED)
        prompts = read_prompts(options.prompts) if options.prompts else OURS
        generation = Generation(0.0, options.max_tokens)
        endpoint = ChatEndpoint(options.endpoint, options.model, options.key, generation, Patience(options.timeout_s))
        judging = Judge(endpoint, prompts, options.repeats)
        answers = open_answers(folder, conditions)
        folder.keep_judge(judging.record, conditions)
        count = len(set(answers)) * len(judging.metrics) * options.repeats
        with ReplyLog.open(folder.judge_log_path) as log, progress_bar("judge", count) as advance:
            asyncio.run(judging.ask_all(answers, log, at_once=options.at_once, on_judgement=advance))
    print("Judged; `eyepiece evaluate score` says how many judgements could be read.")


def open_answers(folder: RunFolder, conditions: Sequence[Condition]) -> list[Answered]:
    """All answers to open questions under these conditions, of every model in the folder."""
    questions = folder.questions()
    answers: list[Answered] = []
    for target in folder.targets():
        log = read_log(folder.answers_path(target.name))
        asked = [condition for condition in target.conditions if condition in conditions]
        for one in plan_asks(questions, asked, target.seed, target.paraphrases).asks:
            text = log.get(one.key, {}).get("text")
            if not one.item.is_closed and text and text.strip():
                answers.append(Answered(one.item.question, one.wanted, text))
    return answers


def score(command: ScoreCommand) -> None:
    """The command: prints the tables and writes all files.

    Raises:
        CommandError: the folder holds no run, or data of a metric is missing.
    """
    with evaluation_errors():
        if unknown := set(command.papers) - set(NLU):
            raise CommandError(f"No paper is called {sorted(unknown)[0]}; choose of {', '.join(NLU)}.", ExitCode.USAGE)
        folder = RunFolder(command.run)
        options = ScoreOptions(
            command.papers,
            read_prompts(command.prompts) if command.prompts else OURS,
            training_slides(command.training) if command.training else None,
            _extras(command),
        )
        scored = score_run(folder, options)
        write_report(folder, scored)
    print(terminal_text(scored))
    print(f"\nThe report: {command.run / 'report.html'}")


def retrieval(path: Path) -> None:
    """The command.

    Raises:
        CommandError: the file holds no square of numbers.
    """
    try:
        square = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.array(json.loads(path.read_text()))
        both = retrieve(square)
    except (OSError, ValueError, TypeError) as error:
        raise CommandError(f"{path.name} holds no square of numbers: {error}.", ExitCode.USAGE) from error
    names = ("report_to_slide", "slide_to_report")
    print(json.dumps({name: found.scores() for name, found in zip(names, both, strict=True)}, indent=1))


@contextmanager
def evaluation_errors() -> Iterator[None]:
    """Errors of an evaluation as the command line has them."""
    try:
        yield
    except TargetError as error:
        raise CommandError(str(error), ExitCode.REFUSED) from error
    except EvaluationError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error


def _require_one(options: AskOptions) -> None:
    given = [name for name in ("eyepiece", "endpoint", "predictions") if getattr(options, name) is not None]
    if len(given) != 1:
        raise CommandError("Say who is asked: one of --eyepiece, --endpoint and --predictions.", ExitCode.USAGE)
    if given == ["endpoint"] and options.model is None:
        raise CommandError("Name the endpoint's model with --model.", ExitCode.USAGE)


def _known_layout(layout: str | None) -> str | None:
    if layout is not None and layout not in READERS:
        raise CommandError(f"No layout is called {layout}; choose of {', '.join(READERS)}.", ExitCode.USAGE)
    return layout


def _conditions(wanted: tuple[str, ...] | None, otherwise: tuple[Condition, ...]) -> tuple[Condition, ...]:
    if wanted is None:
        return otherwise
    if unknown := [name for name in wanted if name not in CONDITIONS]:
        raise CommandError(f"No condition is called `{unknown[0]}`; choose of {'; '.join(CONDITIONS)}.", ExitCode.USAGE)
    return tuple(condition for condition in CONDITIONS if condition in wanted)


def limited_set(questions: QuestionSet, limit: int | None) -> QuestionSet:
    """At most so many questions of each task."""
    if limit is None:
        return questions
    kept: dict[str, list[str]] = {}
    for item in questions.items:
        kept.setdefault(item.task, []).append(item.key)
    limited = questions.limited(key for keys in kept.values() for key in keys[:limit])
    return replace(limited, notes=(*limited.notes, f"only the first {limit} questions of each task were asked"))


def _paraphrases(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    rows = list(json_lines(path))
    return {text_of(row, "key", path.name): text_of(row, "question", path.name) for row in rows}


def paths_of_slides(questions: QuestionSet, options: AskOptions) -> SlidePaths:
    """The files that the command names.

    Raises:
        CommandError, UnreadableSet: it names none, or not one for each slide.
    """
    if options.slides is None:
        raise CommandError("Name the folder of the slide files with --slides.", ExitCode.USAGE)
    return slide_paths(options.slides, questions.slides())


def _extras(command: ScoreCommand) -> tuple[Extra, ...]:
    if command.bertscore is None:
        return ()
    from server.commands.evaluate_bert import bert_scorer

    scorer = bert_scorer(command.bertscore, command.bertscore_layer)
    name = f"BERTScore F1 ({command.bertscore.name}, layer {command.bertscore_layer})"
    return (Extra(name, lambda truth, answer: scorer.score(truth, answer).f1),)
