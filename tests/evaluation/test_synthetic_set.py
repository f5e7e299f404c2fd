"""The whole harness on drawn slides, in both layouts: what it measures is what the truth says, without a model."""

import asyncio
import csv
import json
import re
from functools import partial
from pathlib import Path

import httpx
import pytest
from evaluation_fixtures import needs_language_data
from small_set import IMPATIENT, text_target, transport

from evaluation.asking.conditions import AS_IS, CONDITIONS, WRONG_SAME, Ask, Condition, plan_asks
from evaluation.asking.reply_log import ReplyLog
from evaluation.asking.run import ask_all
from evaluation.asking.targets import ChatEndpoint, reply_line
from evaluation.benchmark.items import QuestionSet
from evaluation.benchmark.read_set import read_set
from evaluation.judging.judge import Answered, Judge
from evaluation.judging.prompts import OURS
from evaluation.report.write import terminal_text, write_report
from evaluation.run_folder import AskedTarget, RunFolder
from evaluation.scoring.score_run import NO_MODEL, Scored, ScoreOptions, score_run
from evaluation.scoring.summary import ALL
from evaluation.stand_ins.answers import answer_by
from evaluation.stand_ins.rule_judge import rule_judge
from evaluation.stand_ins.serve import asked_in
from synthetic.slide_truth import slide_truth
from synthetic.write_wsi_bench import write_wsi_bench

SEEDS = range(2_000_200_000, 2_000_200_008)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    write_wsi_bench(folder, SEEDS)
    return folder


def few(questions: QuestionSet, each: int = 2) -> QuestionSet:
    """So many of every task: the rest would say the same."""
    kept: dict[str, list[str]] = {}
    for item in questions.items:
        kept.setdefault(item.task, []).append(item.key)
    return questions.limited(key for keys in kept.values() for key in keys[:each])


def run_of(folder: Path, questions: QuestionSet, conditions: tuple[Condition, ...], said: object) -> Scored:
    """A run in which `said(ask)` is the answer to every question."""
    run = RunFolder(folder)
    run.keep_set(questions)
    target = text_target()
    run.keep_target(AskedTarget("model", target.record, conditions, (), 0, {}))
    plan = plan_asks(questions, conditions)
    by_content = {(ask.shown, ask.question): ask for ask in plan.asks}

    def answer(body: dict[str, object]) -> object:
        content = body["messages"][0]["content"]  # type: ignore[index]
        picture = asked_in({"messages": [{"role": "user", "content": content}]}).pictures  # type: ignore[dict-item]
        text = content if isinstance(content, str) else content[-1]["text"]
        shown = picture[0].decode() if picture else "none "
        (ask,) = [a for (s, q), a in by_content.items() if q == text and f"{s.kind} {s.slide}" == shown]
        return said(ask)  # type: ignore[operator]

    with ReplyLog.open(run.answers_path("model")) as log:
        asyncio.run(ask_all(partial(reply_line, target), plan.asks, log, transport=transport(answer)))
    judge = Judge(ChatEndpoint("http://judge.test/v1", "rules", patience=IMPATIENT), OURS, repeats=2)
    run.keep_judge(judge.record, [AS_IS])
    answers = [
        Answered(ask.item.question, ask.wanted, said(ask))  # type: ignore[operator]
        for ask in plan.asks
        if not ask.item.is_closed and ask.condition == AS_IS and said(ask)  # type: ignore[operator]
    ]
    with ReplyLog.open(run.judge_log_path) as log:
        asyncio.run(judge.ask_all(answers, log, transport=transport(lambda body: rule_judge(asked_in(body)))))
    return score_run(run, ScoreOptions(papers=("wsi_llava",)))


def number(scored: Scored, metric: str, condition: str = AS_IS, target: str = "model") -> dict[str, object]:
    (line,) = [
        line
        for line in scored.document["numbers"]
        if (line["target"], line["condition"], line["by"], line["group"], line["metric"])
        == (target, condition, "all", ALL, metric)
    ]
    return line


def truth_of(ask: Ask) -> str:
    """Exactly what the set says."""
    return ask.wanted


def looking(ask: Ask) -> str:
    """What somebody answers who sees all of the slide that is shown, and nothing but that."""
    if ask.shown.kind != "slide":
        return "I cannot tell."
    return answer_by(slide_truth(int(ask.shown.slide.rsplit(".", 1)[1])), ask.question)


def test_both_layouts_are_read_and_say_the_same(written: Path) -> None:
    a, b = read_set(written / "dataset"), read_set(written / "WSI-Bench-test.jsonl")
    open_of_a = {(item.slide, item.question, item.truth, item.task) for item in a.items if not item.is_closed}

    assert open_of_a == {(item.slide, item.question, item.truth, item.task) for item in b.items}
    assert {item.group for item in a.items} == {"Morphology", "Diagnosis", "Treatment", "Report"}
    assert len({item.task for item in a.items}) == 14
    assert a.notes == b.notes == ()
    assert len({item.patient for item in a.items}) < len(a.slides())
    with (written / "slides.csv").open() as table:
        assert [row["slide"] for row in csv.DictReader(table)] == a.slides()


def test_options_and_truths_are_those_of_the_slide(written: Path) -> None:
    for item in read_set(written / "dataset").items:
        if item.form == "letter":
            truth = slide_truth(int(item.slide.rsplit(".", 1)[1]))
            assert item.options["ABCD".index(item.truth)] in _values(truth), item


def _values(truth: object) -> str:
    from synthetic.questions.topics import TOPICS

    return " | ".join(topic.phrase(truth) for topic in TOPICS)  # type: ignore[arg-type]


def test_paraphrases_are_of_questions_in_the_set(written: Path) -> None:
    keys = set(read_set(written / "dataset").by_key)
    rows = [json.loads(line) for line in (written / "paraphrases.jsonl").read_text().splitlines()]

    assert rows
    assert {row["key"] for row in rows} <= keys
    assert not any(re.search(r"\bA[).]", row["question"]) for row in rows)


def test_the_truth_gets_everything_by_every_metric(written: Path, tmp_path: Path) -> None:
    needs_language_data()
    scored = run_of(tmp_path, few(read_set(written / "dataset")), (AS_IS,), truth_of)

    for metric in ("exact", "read", "WSI-Precision", "WSI-Relevance", "BLEU-1 (wsi_llava)", "BLEU-4 (wsi_llava)"):
        line = number(scored, metric)
        assert line["failures"] == {}
        assert line["mean_failures_as_0"] == pytest.approx(1.0, abs=1e-6 if "BLEU-4" not in metric else 1.0)


def test_who_looks_falls_to_the_level_of_the_blind_without_the_slide(written: Path, tmp_path: Path) -> None:
    needs_language_data()
    scored = run_of(tmp_path, read_set(written / "dataset"), CONDITIONS, looking)

    assert number(scored, "read")["mean_failures_as_0"] > 0.9  # type: ignore[operator]
    blind = number(scored, "read", "no slide")
    assert blind["failures"] == {"unreadable": blind["rows"]}
    assert (blind["mean_failures_as_0"], blind["mean_without_failures"]) == (0.0, None)
    wrong = number(scored, "read", "wrong slide")
    assert wrong["as_is_minus_this"] > 0.2  # type: ignore[operator]
    assert wrong["as_is_minus_this_low"] > 0  # type: ignore[operator]
    # Of the same project the pattern is the same, and so is more of what is said.
    text = [number(scored, "BLEU-1 (wsi_llava)", name)["mean_without_failures"] for name in ("wrong slide", WRONG_SAME)]
    assert text[0] < text[1]  # type: ignore[operator]


def test_precision_is_the_share_of_attributes_that_are_right(written: Path, tmp_path: Path) -> None:
    """A report of another slide, by the judge of rules: claims are attributes, so the truth says which are right."""
    needs_language_data()
    questions = read_set(written / "dataset")
    reports = questions.limited(item.key for item in questions.items if item.task == "Report")
    truths = [item.truth for item in reports.items]
    said = dict(zip((item.key for item in reports.items), truths[1:] + truths[:1], strict=True))

    scored = run_of(tmp_path, reports, (AS_IS,), lambda ask: said[ask.item.key])

    shares = []
    for item in reports.items:
        own, other = item.truth.split(". "), said[item.key].split(". ")
        shares.append(round(sum(a.rstrip(".") == b.rstrip(".") for a, b in zip(own, other, strict=True)) / len(own), 3))
    assert number(scored, "WSI-Precision")["mean_failures_as_0"] == pytest.approx(sum(shares) / len(shares), abs=1e-6)
    assert scored.document["judge"]["reliability"]["WSI-Precision"]["items_on_which_all_repeats_agree"] == len(shares)


def test_nothing_is_dropped(written: Path, tmp_path: Path) -> None:
    """Answers that are missing, empty, unreadable or failed: every row of the set is in every number."""
    needs_language_data()
    questions = few(read_set(written / "dataset"))
    bad = ["", "   ", "A and B", httpx.Response(400)]
    order = {item.key: number for number, item in enumerate(questions.items)}

    def said(ask: Ask) -> object:
        return bad[order[ask.item.key] % len(bad)]

    run = RunFolder(tmp_path)
    run.keep_set(questions)
    run.keep_target(AskedTarget("model", text_target().record, (AS_IS,), (), 0, {}))
    plan = plan_asks(questions, [AS_IS])
    by_question = {(ask.item.question, ask.item.slide): ask for ask in plan.asks}

    def answer(body: dict[str, object]) -> object:
        content = body["messages"][0]["content"]  # type: ignore[index]
        slide = asked_in({"messages": [{"role": "user", "content": content}]}).pictures[0].decode().split(" ")[1]
        return said(by_question[content[-1]["text"], slide])

    with ReplyLog.open(run.answers_path("model")) as log:
        asyncio.run(ask_all(partial(reply_line, text_target()), plan.asks[:-2], log, transport=transport(answer)))
    scored = score_run(run, ScoreOptions(papers=("wsi_llava",)))

    closed = [item for item in questions.items if item.is_closed]
    line = number(scored, "read")
    assert line["rows"] == len(closed)
    assert sum(line["failures"].values()) == len(closed)  # type: ignore[attr-defined]
    assert line["mean_failures_as_0"] == 0
    opened = number(scored, "BLEU-1 (wsi_llava)")
    assert opened["rows"] == len(questions.items) - len(closed)
    assert set(opened["failures"]) == {"empty_answer", "refused", "not_asked"}  # type: ignore[call-overload]


def test_the_report_is_one_file_that_needs_no_other(written: Path, tmp_path: Path) -> None:
    needs_language_data()
    hostile = "<script>alert(1)</script>"
    scored = run_of(tmp_path, few(read_set(written / "dataset")), (AS_IS, WRONG_SAME), lambda ask: hostile)
    run = RunFolder(tmp_path)

    write_report(run, scored)

    page = (tmp_path / "report.html").read_text()
    assert hostile not in page
    assert "&lt;script&gt;alert(1)" in page
    assert re.findall(r"""(?:src|href)=["']|@import|url\(|https?://""", page) == []
    assert "same project's reference" in terminal_text(scored)
    assert {target for target, _ in scored.rows} == {"model", NO_MODEL}
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    write_report(run, score_run(run, ScoreOptions(papers=("wsi_llava",))))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    with (tmp_path / "rows.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert (
        len({(row["target"], row["condition"], row["key"]) for row in rows if row["target"] == "model"})
        == len(scored.questions.items) * 2
    )
