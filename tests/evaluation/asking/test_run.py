"""Every question gets an answer or a reason, once; what was answered is not asked again."""

import asyncio
import json
from collections import Counter
from functools import partial
from pathlib import Path

import httpx
import pytest
from small_set import item, questions, text_target, transport

from evaluation.asking.conditions import AS_IS, BLANK, NO_SLIDE, plan_asks
from evaluation.asking.reply_log import ReplyLog, read_log
from evaluation.asking.run import Budget, Outcome, ask_all
from evaluation.asking.targets import reply_line
from evaluation.errors import RunMismatch, TargetError

ASKS = plan_asks(questions(), [AS_IS]).asks
PUT = partial(reply_line, text_target())


def run(path: Path, answer: object, budget: Budget | None = None, at_once: int = 3) -> Outcome:
    with ReplyLog.open(path) as log:
        made = transport(answer)  # type: ignore[arg-type]
        return asyncio.run(ask_all(PUT, ASKS, log, budget=budget, at_once=at_once, transport=made))


def test_answers_are_kept_and_not_asked_for_again(tmp_path: Path) -> None:
    bodies = []

    first = run(tmp_path / "log", lambda body: bodies.append(body) or "A")
    second = run(tmp_path / "log", lambda body: bodies.append(body) or "B")

    assert (first, second) == (Outcome(0, 6), Outcome(6, 0))
    assert len(bodies) == 6
    assert {line["text"] for line in read_log(tmp_path / "log").values()} == {"A"}


def test_the_picture_goes_before_the_question(tmp_path: Path) -> None:
    bodies = []
    asks = plan_asks(questions(item(1)), [AS_IS, BLANK, NO_SLIDE]).asks
    with ReplyLog.open(tmp_path / "log") as log:
        made = transport(lambda body: bodies.append(body["messages"][0]["content"]) or "A")
        asyncio.run(ask_all(PUT, asks, log, at_once=1, transport=made))

    as_is, blank, none = bodies
    assert [part["type"] for part in as_is] == ["image_url", "text"]
    assert blank[0] != as_is[0]
    assert none == asks[0].question


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (httpx.Response(429), "http_429"),
        (httpx.Response(503), "http_503"),
        (httpx.Response(200, content=b"<html>"), "no_json_reply"),
        (httpx.Response(200, json={"choices": []}), "no_chat_reply"),
        (httpx.Response(400), "refused"),
    ],
)
def test_a_failure_has_a_reason_and_is_asked_again_by_the_next_run(
    tmp_path: Path, reply: httpx.Response, reason: str
) -> None:
    first = run(tmp_path / "log", lambda body: reply)

    assert first.failed == Counter({reason: 6})
    assert {line["reason"] for line in read_log(tmp_path / "log").values()} == {reason}
    assert run(tmp_path / "log", lambda body: "A") == Outcome(0, 6)


def test_what_is_too_busy_at_first_is_asked_again_at_once(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()

    def busy_first(body: dict[str, object]) -> object:
        key = json.dumps(body)
        seen[key] += 1
        return "A" if seen[key] > 1 else httpx.Response(429, headers={"Retry-After": "0"})

    assert run(tmp_path / "log", busy_first) == Outcome(0, 6)
    assert {line["attempts"] for line in read_log(tmp_path / "log").values()} == {2}


def test_an_answer_that_comes_too_late_is_a_failure(tmp_path: Path) -> None:
    async def never(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    with ReplyLog.open(tmp_path / "log") as log:
        found = asyncio.run(ask_all(PUT, ASKS[:1], log, transport=httpx.MockTransport(never)))

    assert found.failed == Counter({"too_late": 1})


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_everything_ends_the_run(tmp_path: Path, status: int) -> None:
    with pytest.raises(TargetError, match=f"status {status}"):
        run(tmp_path / "log", lambda body: httpx.Response(status))


def test_a_budget_of_questions_holds_across_runs(tmp_path: Path) -> None:
    first = run(tmp_path / "log", lambda body: "A", Budget(questions=4))
    second = run(tmp_path / "log", lambda body: "A", Budget(questions=5))

    assert (first, second) == (Outcome(0, 4, not_asked=2), Outcome(4, 1, not_asked=1))


def test_a_budget_of_money_counts_what_was_spent(tmp_path: Path) -> None:
    price = Budget(usd=2.5e-4, usd_per_million_prompt=1.0)  # 100 tokens a prompt: 1e-4 a question

    assert run(tmp_path / "log", lambda body: "A", price, at_once=1) == Outcome(0, 3, not_asked=3)


def test_a_line_that_was_cut_off_is_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    run(path, lambda body: "A")
    path.write_bytes(path.read_bytes()[:-20])

    with ReplyLog.open(path) as log:
        assert log.cut_bytes > 0
        assert len(log.latest) == 5
    assert run(path, lambda body: "A") == Outcome(5, 1)
    assert len(read_log(path)) == 6


def test_a_damaged_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"key": "a"}\nrubbish\n{"key": "b"}\n')

    with pytest.raises(RunMismatch, match="line 2"):
        read_log(tmp_path / "log")


def test_one_process_at_a_time_writes_to_a_log(tmp_path: Path) -> None:
    refused = pytest.raises(RunMismatch, match="Another process")
    with ReplyLog.open(tmp_path / "log"), refused, ReplyLog.open(tmp_path / "log"):
        pass
