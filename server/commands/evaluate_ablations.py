"""`eyepiece evaluate ablations …`: what is lost where a slide lacks something, and what the metrics are worth.

ask         as is, blank, shuffled → every tile budget: encode within it, ask → all tiles again
metrics     text metrics on reports whose share of right statements is known
alignment   an installed model's projected slides beside their reports       server/commands/evaluate_alignment.py
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import httpx

from evaluation.ablations.compare_metrics import follow_truth
from evaluation.ablations.table_file import AblationTable
from evaluation.asking.ablations import BUDGETS, DRAWS, Budget, budgets_of, without_budget
from evaluation.asking.conditions import CONDITIONS, Condition, Shown, plan_asks
from evaluation.asking.http_call import Patience
from evaluation.asking.reply_log import ReplyLog
from evaluation.asking.run import Outcome, ask_all
from evaluation.asking.targets import EyepieceTarget, Generation, reply_line
from evaluation.benchmark.items import QuestionSet
from evaluation.benchmark.read_set import read_set
from evaluation.metrics.nlu import NLU
from evaluation.run_folder import AskedTarget, RunFolder
from server.commands.api_client import ApiClient
from server.commands.encode_for_model import ready_encoder, served_model
from server.commands.evaluate import AskOptions, evaluation_errors, limited_set, paths_of_slides
from server.commands.evaluate_progress import progress_bar
from server.commands.evaluate_slides import eyepiece_slides
from server.commands.outcome import CommandError, ExitCode

METRICS_FILE: Final = "metrics.json"


@dataclass(frozen=True)
class AblationOptions:
    """`asked` names the Eyepiece, the questions and the slides; `budgets` in tiles, each evenly spaced and `draws`
    times at random."""

    asked: AskOptions
    budgets: Sequence[int] = BUDGETS
    draws: int = DRAWS


def ask_ablations(options: AblationOptions) -> None:
    """The command. It goes on where it was killed; slides are encoded of all tiles again when it ends.

    Raises:
        CommandError: the questions, the slides or the model are not what they should be, or some got no answer.
    """
    with evaluation_errors(), ApiClient(options.asked.eyepiece or "", options.asked.key) as client:
        asked = options.asked
        questions = limited_set(read_set(asked.questions, asked.layout), asked.limit)
        folder = RunFolder(asked.out)
        folder.keep_set(questions)
        outcomes = put_ablations(client, questions, folder, options)
    failed = sum(sum(outcome.failed.values()) for outcome in outcomes)
    print(f"{asked.name}: {sum(outcome.answered for outcome in outcomes)} answered now, {failed} failed.")
    if failed:
        raise CommandError("Some questions got no answer. The same command asks for them again.", ExitCode.FAILED)


def put_ablations(
    client: ApiClient,
    questions: QuestionSet,
    folder: RunFolder,
    options: AblationOptions,
    transport: httpx.AsyncBaseTransport | None = None,
) -> list[Outcome]:
    """All questions under all conditions, budget by budget: a slide has one embedding at a time.

    Raises:
        CommandError: the server refused a slide, or has no such model.
        EvaluationError: the run is another's.
    """
    asked, ablated = options.asked, _ablated(client, questions, options)
    folder.keep_target(ablated.kept)
    plan = plan_asks(questions, ablated.kept.conditions, asked.seed)
    with (
        ReplyLog.open(folder.answers_path(asked.name)) as log,
        ReplyLog.open(folder.encodes_path(asked.name)) as encodes,
        progress_bar(asked.name, len(plan.asks)) as advance,
    ):

        def put(target: EyepieceTarget, conditions: Sequence[Condition]) -> Outcome:
            asks = [ask for ask in plan.asks if ask.condition in conditions]
            answers = ask_all(
                partial(reply_line, target), asks, log, at_once=asked.at_once, on_reply=advance, transport=transport
            )
            return asyncio.run(answers)

        outcomes = [put(ablated.target, ablated.plain)]
        try:
            for budget in ablated.budgets:
                shown = _encode_within(client, budget, ablated.slides, ablated.model, encodes)
                outcomes.append(put(replace(ablated.target, slide_ids=shown), [budget.condition]))
        finally:
            for slide_id in ablated.slides.values():
                client.encode(slide_id, None, urgent=False, tile_budget="all")
    return outcomes


@dataclass(frozen=True)
class _Ablated:
    """`target` with all that needs no budget ready; `slides` are ids by name."""

    target: EyepieceTarget
    kept: AskedTarget
    plain: tuple[Condition, ...]
    budgets: tuple[Budget, ...]
    slides: dict[str, str]
    model: str


def _ablated(client: ApiClient, questions: QuestionSet, options: AblationOptions) -> _Ablated:
    """The model with all slides ready that no budget is needed for."""
    asked = options.asked
    models = {str(found["id"]): found for found in client.models()}
    name = served_model(models, asked.model)
    if name != next(iter(models)):
        raise CommandError(
            "A tile budget is of the server's first model; start one with that model first.", ExitCode.USAGE
        )
    plain = without_budget("regions" if models[name].get("kind") == "regions" else "tiles")
    budgets = tuple(budgets_of(options.budgets, options.draws))
    asks = plan_asks(questions, plain, asked.seed).asks
    ids, model = eyepiece_slides(client, asks, paths_of_slides(questions, asked), name, lift_budgets=True)
    generation = Generation(asked.temperature, asked.max_tokens, None)
    target = EyepieceTarget(asked.eyepiece or "", asked.key, model, ids, generation, Patience(asked.timeout_s))
    conditions = (*plain, *(budget.condition for budget in budgets))
    record: dict[str, Any] = {**target.record, "ablations": list(conditions), "note": asked.note}
    unavailable = tuple(condition for condition in CONDITIONS if condition not in conditions)
    kept = AskedTarget(asked.name, record, conditions, unavailable, asked.seed, {})
    slides = {slide: ids[Shown("slide", slide)] for slide in questions.slides()}
    return _Ablated(target, kept, plain, budgets, slides, name)


def _encode_within(
    client: ApiClient, budget: Budget, ids: dict[str, str], model: str, log: ReplyLog
) -> dict[Shown, str]:
    """Has every slide encoded within the budget, one after the other so that each one's time is its own."""
    for slide, slide_id in ids.items():
        key, began = f"{budget.condition}/{slide}", time.monotonic()
        begun = client.encode(slide_id, None, urgent=False, tile_budget=budget.as_request())
        encoder = ready_encoder(client, begun, model)
        took_s = None if begun["status"] == "ready" else round(time.monotonic() - began, 3)
        if took_s is None and key in log.latest:
            continue  # what it took was noted when it was made
        tiles = client.slide(slide_id)["tile_count"]
        said = {"key": key, "condition": budget.condition, "slide": slide, "budget": budget.tiles}
        log.append({**said, "tiles": tiles, "encode_s": took_s, "encoder_id": encoder})
    return {Shown(budget.condition, slide): slide_id for slide, slide_id in ids.items()}


def compare_text_metrics(run: RunFolder, papers: Sequence[str] = tuple(NLU)) -> None:
    """The command: writes the table into the run and prints it.

    Raises:
        CommandError: data of a metric is missing.
    """
    with evaluation_errors():
        found = follow_truth(papers)
    rows = [
        [
            one.metric,
            "",
            f"{one.correlation:.2f} ({one.interval.low:.2f}–{one.interval.high:.2f})",
            f"{one.all_right:.3f}",
            f"{one.none_right:.3f}",
        ]
        for one in sorted(found, key=lambda one: -one.correlation)
    ]
    table = AblationTable(
        "Text metrics beside the exact truth",
        [
            "160 reports about drawn slides with none to all of seven statements wrong, sentences in another order; "
            "Spearman's correlation of the metric with the exact share of right statements, 95 % by bootstrap.",
            "Every statement is worded alike whether right or wrong, so this is kinder to text metrics than free "
            "wording would be. No model and no judge is in it.",
        ],
        ["metric", "", "follows the truth", "mean, all right", "mean, nothing right"],
        rows,
    )
    table.write(run.ablations_folder / METRICS_FILE)
    print_table(table)


def print_table(table: AblationTable) -> None:
    """For a terminal."""
    widths = [max(map(len, column)) for column in zip(table.head, *table.rows, strict=True)]
    print(table.title)
    for row in (table.head, *table.rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width).rstrip())
    for note in table.notes:
        print(note)
