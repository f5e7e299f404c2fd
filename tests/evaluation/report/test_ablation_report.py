"""The report of a run with an ablated model: compared with itself, beside what its encodes took."""

import csv
from pathlib import Path

import pytest
from small_set import item, questions

from evaluation.ablations.table_file import AblationTable
from evaluation.asking.conditions import AS_IS, WRONG_SAME, Condition, plan_asks
from evaluation.asking.reply_log import ReplyLog
from evaluation.report.pick import Numbers
from evaluation.report.write import terminal_text, write_report
from evaluation.run_folder import AskedTarget, RunFolder
from evaluation.scoring.score_run import Scored, ScoreOptions, score_run

FEW: Condition = "1,000 tiles"
NOT_YET: Condition = "1,000 tiles, draw 1"


@pytest.fixture
def scored(tmp_path: Path) -> Scored:
    """An Eyepiece that is always right as is, and says A under a budget; the same Eyepiece plainly."""
    run = RunFolder(tmp_path)
    asked = questions(*(item(number) for number in range(6)))
    run.keep_set(asked)
    record = {"kind": "eyepiece", "model": {"id": "demo"}, "generation": {}}
    for name, extra, conditions in (
        ("plain", {}, (AS_IS, WRONG_SAME)),
        ("lacking", {"ablations": [FEW]}, (AS_IS, FEW, NOT_YET)),
    ):
        run.keep_target(AskedTarget(name, {**record, **extra}, conditions, (), 0, {}))
        with ReplyLog.open(run.answers_path(name)) as log:
            for ask in plan_asks(asked, [it for it in conditions if it != NOT_YET]).asks:
                text = ask.wanted if ask.condition == AS_IS else "A"
                log.append({"key": ask.key, "condition": ask.condition, "text": text, "reason": None})
    with ReplyLog.open(run.encodes_path("lacking")) as log:
        for number, tiles in enumerate((1_000, 1_000, 700)):
            line = {"key": f"{FEW}/s{number}", "condition": FEW, "slide": f"s{number}", "budget": 1_000, "tiles": tiles}
            log.append({**line, "encode_s": 2.0 + number, "encoder_id": "e"})
    AblationTable("Kept <table>", ["A note."], ["space", ""], [["shared", ""]]).write(run.ablations_folder / "x.json")
    found = score_run(run, ScoreOptions(papers=()))
    write_report(run, found)
    return found


def test_a_model_is_ablated_beside_itself_alone(scored: Scored) -> None:
    numbers = Numbers(scored.document)

    assert (numbers.targets, numbers.ablated) == (["plain"], ["lacking"])
    text = terminal_text(scored)
    (line,) = [line for line in text.splitlines() if line.startswith(f"{FEW} ")]
    # Two of six are A: a third is right, and two thirds are lost.
    assert line.split()[2:5] == ["6", "0", "0.333"]
    assert "+0.667" in line
    assert line.endswith("1,000             1 of 3       3.0")


def test_a_budget_that_was_not_asked_about_yet_has_lost_nothing(scored: Scored) -> None:
    (line,) = [line for line in terminal_text(scored).splitlines() if line.startswith(NOT_YET)]

    assert line.split()[4:] == ["6", "6", "–"]


def test_the_page_has_all_of_it_and_escapes_it(scored: Scored, tmp_path: Path) -> None:
    page = (tmp_path / "report.html").read_text()

    assert "<h2>Ablations</h2>" in page
    assert "Kept &lt;table&gt;" in page
    assert "A note." in page
    assert "Metrics: right slide against another of the same project" in page


def test_budgets_are_conditions_of_the_table_of_numbers(scored: Scored, tmp_path: Path) -> None:
    with (tmp_path / "numbers.csv").open() as table:
        conditions = {row["condition"] for row in csv.DictReader(table) if row["target"] == "lacking"}

    assert conditions == {AS_IS, FEW, NOT_YET}
