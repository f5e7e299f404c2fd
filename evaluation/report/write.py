"""Writes all that a scored run gives: results.json, numbers.csv, rows.csv, report.html, and answers for other
scripts."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from evaluation.asking.conditions import AS_IS
from evaluation.benchmark.wsi_bench import answers_b
from evaluation.metrics.language_data import language_data_record
from evaluation.report.ablation_tables import ablation_tables
from evaluation.report.page import report_page
from evaluation.report.pick import Numbers, shown_metrics
from evaluation.report.table import main_table
from evaluation.run_folder import RunFolder, as_json, write_whole
from evaluation.scoring.score_run import NO_MODEL, Scored
from evaluation.scoring.statistics import DRAWS

_LINE: Final = (
    "target", "condition", "by", "group", "metric", "rows", "scored", "patients", "failures", "mean_failures_as_0",
    "mean_without_failures", "low", "high", "as_is_minus_this", "as_is_minus_this_low", "as_is_minus_this_high",
    "as_is_minus_this_rows", "refused",
)  # fmt: skip
_ROW: Final = (
    "target", "condition", "key", "task", "form", "project", "patient", "slide", "shown", "metric", "value", "reason",
)  # fmt: skip


def write_report(folder: RunFolder, scored: Scored) -> None:
    """Replaces every file as a whole; the same logs give the same bytes."""
    record = record_of(scored)
    write_whole(folder.path / "results.json", as_json({"record": record, **scored.document}))
    write_whole(folder.path / "numbers.csv", _csv(_LINE, scored.document["numbers"]))
    write_whole(folder.path / "rows.csv", _csv(_ROW, _row_lines(scored)))
    write_whole(folder.path / "report.html", report_page(scored, record))
    for (target, condition), rows in scored.rows.items():
        if condition == AS_IS and target != NO_MODEL:
            answered = [(row.item, row.answer) for row in rows if row.answer is not None]
            text = "".join(f"{line}\n" for line in answers_b(answered))
            write_whole(folder.answers_path(target).with_name("answers-as-is.jsonl"), text)
            # The table that the published scripts of WSI-Precision and WSI-Relevance read.
            lines = [
                {"question_id": item.key, "metadata": item.label or item.task, "model_output": answer}
                for item, answer in answered
            ]
            table = _csv(("question_id", "metadata", "model_output"), lines)
            write_whole(folder.answers_path(target).with_name("answers-as-is.csv"), table)


def record_of(scored: Scored) -> dict[str, Any]:
    """All that decides the numbers: set, models with weights, template and generation, judge with prompts, versions."""
    document = scored.document
    as_is = {
        target: {line["metric"]: line["failures"] for line in document["numbers"] if _is_whole(line, target)}
        for target in document["targets"]
    }
    return {
        "set": document["set"],
        "targets": document["targets"],
        "judge": document["judge"],
        "failed_rows_as_is": as_is,
        "papers": document["papers"],
        "language_data": language_data_record() if document["papers"] else None,
        "bootstrap_draws": DRAWS,
        "interval": "95 %: Wilson for shares of right answers, else bootstrap by patient",
    }


def terminal_text(scored: Scored) -> str:
    """The tables for a terminal."""
    numbers = Numbers(scored.document)
    main = [main_table(numbers, metric).text() for metric in shown_metrics(numbers)]
    return "\n\n".join([*main, *(table.text() for table, _ in ablation_tables(scored.document, numbers))])


def _is_whole(line: Mapping[str, Any], target: str) -> bool:
    return bool(line["target"] == target and line["condition"] == AS_IS and line["by"] == "all")


def _row_lines(scored: Scored) -> Iterable[dict[str, Any]]:
    for (target, condition), rows in scored.rows.items():
        for row in rows:
            item = row.item
            head = {"target": target, "condition": condition, "key": item.key, "task": item.task, "form": item.form}
            whose = {"project": item.project, "patient": item.patient, "slide": item.slide, "shown": row.shown}
            for metric, found in row.values.items():
                value = None if found.value is None else round(found.value, 6)
                yield {**head, **whose, "metric": metric, "value": value, "reason": found.reason}


def _csv(columns: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for line in lines:
        failures = line.get("failures")
        named = "; ".join(f"{reason} {count}" for reason, count in failures.items()) if failures else ""
        writer.writerow({**line, "failures": named} if "failures" in columns else line)
    return text.getvalue()
