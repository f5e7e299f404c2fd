"""Scores a run: the logs of a folder become one document of numbers. Nobody is asked.

The document depends on the logs alone: no time, no order of replies, so a run that was killed and went on scores to the
same bytes as one that was not.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from evaluation.ablations.compare_metrics import compare_metrics
from evaluation.ablations.table_file import read_tables
from evaluation.asking.conditions import AS_IS, plan_asks
from evaluation.asking.reply_log import read_log
from evaluation.asking.targets import ChatEndpoint, Generation
from evaluation.benchmark.items import Item, QuestionSet
from evaluation.benchmark.wsi_bench import published_rows
from evaluation.errors import RunMismatch
from evaluation.judging.judge import Judge
from evaluation.judging.prompts import OURS, Prompts
from evaluation.run_folder import AskedTarget, RunFolder
from evaluation.scoring.ablated import encodes_of
from evaluation.scoring.baselines import baseline_rows
from evaluation.scoring.projects import is_too_small, project_groups
from evaluation.scoring.reliability import reliability
from evaluation.scoring.rows import Extra, Measures, Row, row_of, without_partner
from evaluation.scoring.summary import ALL, metrics_in, summarize

NO_MODEL: Final = "no model"
Rows = dict[tuple[str, str], list[Row]]


@dataclass(frozen=True)
class ScoreOptions:
    """`papers` whose text metrics are computed, prompts of the judge that judged, slides by project of the training."""

    papers: tuple[str, ...] = ("wsi_llava", "mllm_hwsi")
    prompts: Prompts = OURS
    training_slides: Mapping[str, int] | None = None
    extras: tuple[Extra, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Scored:
    """Rows by (target, condition), and the document of all numbers."""

    questions: QuestionSet
    rows: Rows
    document: dict[str, Any] = field(default_factory=dict)


def score_run(folder: RunFolder, options: ScoreOptions) -> Scored:
    """The rows and numbers of everything in the folder.

    Raises:
        EvaluationError: the folder holds no run, data of a metric is missing, or other prompts judged than are given.
    """
    questions = folder.questions()
    judged = folder.judge()
    measures = _measures(folder, judged, options)
    rows: Rows = {}
    targets = folder.targets()
    for target in targets:
        rows.update(_target_rows(folder, target, questions, measures))
    for name, found in baseline_rows(questions, measures, options.seed).items():
        if found:
            rows[NO_MODEL, name] = found
    document = {
        "set": _set_document(questions),
        "targets": {target.name: target.as_document() for target in targets},
        "judge": None if judged is None else {**judged, "reliability": reliability(rows)},
        "papers": list(options.papers),
        "ablated_encodes": {target.name: encodes_of(folder, target) for target in targets},
        "ablations": [table.as_document() for table in read_tables(folder.ablations_folder)],
        "metric_comparison": compare_metrics(rows),
        "numbers": _numbers(questions, rows, options),
    }
    return Scored(questions, rows, document)


def judge_of(record: Mapping[str, Any], prompts: Prompts) -> Judge:
    """The judge of a record, to read its log; it cannot be asked."""
    endpoint = ChatEndpoint("", record["model"], generation=Generation(record["temperature"], record["max_tokens"]))
    return Judge(endpoint, prompts, record["repeats"], tuple(record["metrics"]))


def _measures(folder: RunFolder, judged: Mapping[str, Any] | None, options: ScoreOptions) -> Measures:
    if judged is None:
        return Measures(options.papers, extras=options.extras)
    if judged["record"]["prompt_hash"] != options.prompts.digest:
        raise RunMismatch("The judge was given other prompts: name them with --judge-prompts.")
    return Measures(
        options.papers,
        judge_of(judged["record"], options.prompts),
        read_log(folder.judge_log_path),
        tuple(judged["conditions"]),
        options.extras,
    )


def _target_rows(folder: RunFolder, target: AskedTarget, questions: QuestionSet, measures: Measures) -> Rows:
    log = read_log(folder.answers_path(target.name))
    plan = plan_asks(questions, target.conditions, target.seed, target.paraphrases)
    rows: Rows = {(target.name, condition): [] for condition in target.conditions}
    for ask in plan.asks:
        rows[target.name, ask.condition].append(row_of(ask, log.get(ask.key), measures))
    for condition, keys in plan.without_partner.items():
        items = [questions.by_key[key] for key in keys]
        rows[target.name, condition] += [without_partner(condition, item, measures) for item in items]
    return rows


def _set_document(questions: QuestionSet) -> dict[str, Any]:
    counts = Counter(item.task for item in questions.items)
    published = published_rows(questions.layout)
    form = {item.task: (item.group, item.form) for item in questions.items}
    tasks = [
        {
            "task": task,
            "group": form[task][0],
            "form": form[task][1],
            "rows": counts[task],
            "rows_of_the_published_set": published.get(task),
        }
        for task in counts
    ]
    return {
        "name": questions.name,
        "layout": questions.layout,
        "digest": questions.digest,
        "notes": list(questions.notes),
        "rows": len(questions.items),
        "slides": len(questions.slides()),
        "patients": len({item.patient for item in questions.items}),
        "tasks": tasks,
    }


def _numbers(questions: QuestionSet, rows: Rows, options: ScoreOptions) -> list[dict[str, Any]]:
    """A line for every target, condition, group of rows and metric."""
    pools = project_groups(questions.items, options.training_slides)
    lines: list[dict[str, Any]] = []
    for (target, condition), found in rows.items():
        reference = rows.get((target, AS_IS), []) if condition != AS_IS else []
        for kind, group, part in _groups(found, pools):
            head = {"target": target, "condition": condition, "by": kind, "group": group}
            if kind == "project" and is_too_small([row.item for row in part]):
                # What would identify patients, and says nothing.
                lines.append({**head, "metric": "", "rows": len(part), "refused": "fewer than 5 slides"})
                continue
            for metric in metrics_in(part):
                lines.append({**head, **summarize(part, metric, reference).as_document()})
    return lines


def _groups(rows: Sequence[Row], pools: Mapping[str, str]) -> list[tuple[str, str, list[Row]]]:
    """All rows, then by group of tasks, task and project."""
    groups: dict[tuple[str, str], list[Row]] = {("all", ALL): list(rows)}
    for row in rows:
        for kind, name in _places(row.item, pools):
            groups.setdefault((kind, name), []).append(row)
    order = ("all", "group", "task", "project")
    return [(kind, name, found) for (kind, name), found in sorted(groups.items(), key=lambda g: order.index(g[0][0]))]


def _places(item: Item, pools: Mapping[str, str]) -> list[tuple[str, str]]:
    return [("group", item.group), ("task", item.task), ("project", pools[item.project] or "no project")]
