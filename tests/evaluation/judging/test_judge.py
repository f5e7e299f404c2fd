"""A judge that answers rubbish, nothing, too late or not now: counted, asked again, never dropped."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from small_set import IMPATIENT, transport

from evaluation.asking.reply_log import ReplyLog, read_log
from evaluation.asking.targets import ChatEndpoint
from evaluation.judging.judge import ATTEMPTS, Answered, Judge, Judgement, ToJudge
from evaluation.judging.prompts import OURS, Prompts

ANSWER = Answered("What is seen?", "Glands are irregular. Mitoses are rare.", "Glands are irregular.")
JUDGE = Judge(
    ChatEndpoint("http://judge.test/v1", "j", patience=IMPATIENT), OURS, repeats=1, metrics=("WSI-Precision",)
)


def rule(body: dict[str, Any]) -> str:
    """Claims are sentences; they are right where they stand in the other text."""
    system, user = (message["content"] for message in body["messages"])
    fields = json.loads(user)
    if system == OURS.precision_claims:
        return json.dumps([part.strip(" .") for part in fields["text"].split(". ")])
    return json.dumps([{"claim": c, "explanation": "", "score": int(c in fields["text"])} for c in fields["claims"]])


def judged(path: Path, answer: Any, judge: Judge = JUDGE, answers: tuple[Answered, ...] = (ANSWER,)) -> Judgement:
    with ReplyLog.open(path) as log:
        asyncio.run(judge.ask_all(answers, log, transport=transport(answer)))
        return judge.judgement(log.latest, ToJudge(answers[0], "WSI-Precision", 0))


def at_scores(reply: Any) -> Any:
    """Claims as they should be, and this for the scores."""
    return lambda body: rule(body) if body["messages"][0]["content"] == OURS.precision_claims else reply


def test_claims_of_the_reference_are_judged_by_the_answer(tmp_path: Path) -> None:
    assert judged(tmp_path / "log", rule) == Judgement(0.5, None, "scores", 2)


@pytest.mark.parametrize(
    ("reply", "reason", "lines"),
    [
        ("rubbish", "not_json", ATTEMPTS),
        ("", "empty", ATTEMPTS),
        (None, "empty", ATTEMPTS),
        ("[]", "wrong_number_of_claims", ATTEMPTS),
        ('[{"score": 1}, {"score": 2}]', "score_not_in_set", ATTEMPTS),
        (httpx.Response(429), "no_reply", 1),
        (httpx.Response(500), "no_reply", 1),
        (httpx.Response(200, content=b"no"), "no_reply", 1),
    ],
)
def test_what_cannot_be_read_is_asked_for_again_and_kept(tmp_path: Path, reply: Any, reason: str, lines: int) -> None:
    found = judged(tmp_path / "log", at_scores(reply))

    assert found == Judgement(None, reason, "scores", 2)
    kept = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert len(kept) == 1 + lines
    assert Counter(line["unread"] for line in kept) == {None: 1, reason: lines}
    # The next run asks again, and what can be read then counts.
    assert judged(tmp_path / "log", rule) == Judgement(0.5, None, "scores", 2)


def test_a_judge_that_is_too_late_gives_no_reply(tmp_path: Path) -> None:
    async def never(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    with ReplyLog.open(tmp_path / "log") as log:
        asyncio.run(JUDGE.ask_all([ANSWER], log, transport=httpx.MockTransport(never)))
        found = JUDGE.judgement(log.latest, ToJudge(ANSWER, "WSI-Precision", 0))

    assert found == Judgement(None, "no_reply", "claims", 0)
    assert {line["reason"] for line in read_log(tmp_path / "log").values()} == {"too_late"}


def test_rubbish_at_first_is_no_failure(tmp_path: Path) -> None:
    replies: Counter[str] = Counter()

    def rubbish_first(body: dict[str, Any]) -> str:
        replies[json.dumps(body)] += 1
        return "rubbish" if replies[json.dumps(body)] < ATTEMPTS else rule(body)

    assert judged(tmp_path / "log", rubbish_first).score == 0.5


def test_claims_that_cannot_be_read_fail_at_their_own_step(tmp_path: Path) -> None:
    assert judged(tmp_path / "log", lambda body: "none") == Judgement(None, "not_json", "claims")
    assert judged(tmp_path / "log2", lambda body: "[]") == Judgement(None, "no_claims", "claims")


def test_a_references_claims_are_asked_for_once_for_all_answers(tmp_path: Path) -> None:
    bodies: list[str] = []
    answers = (ANSWER, Answered(ANSWER.question, ANSWER.truth, "Mitoses are rare."))

    judged(tmp_path / "log", lambda body: bodies.append(json.dumps(body)) or rule(body), answers=answers)

    assert len(bodies) == len(set(bodies)) == 3


def test_nobody_is_asked_twice_for_what_is_known(tmp_path: Path) -> None:
    judged(tmp_path / "log", rule)

    def nobody(body: dict[str, Any]) -> str:
        raise AssertionError("asked again")

    assert judged(tmp_path / "log", nobody).score == 0.5


def test_other_prompts_and_other_judges_are_other_judgements(tmp_path: Path) -> None:
    judged(tmp_path / "log", rule)
    published = Prompts("published", "a", "b", "c", "d", as_published=True)
    log = read_log(tmp_path / "log")

    for other in (Judge(JUDGE.endpoint, published, 1), Judge(ChatEndpoint("", "other"), OURS, 1)):
        assert other.judgement(log, ToJudge(ANSWER, "WSI-Precision", 0)).reason == "not_asked"


def test_published_prompts_are_sent_as_the_public_scripts_send_them() -> None:
    published = Prompts("published", "a", "b", "c", "d", as_published=True)

    assert published.claims_of("WSI-Precision", "Q?", "text")[1]["content"] == "text"
    scores = published.scores_of("WSI-Relevance", "Q?", ("one", "two"), "text")
    assert [message["content"] for message in scores] == ["d", "claims:['one', 'two']", "text"]
