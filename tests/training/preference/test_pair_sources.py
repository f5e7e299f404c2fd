"""Pairs in their open format, and what becomes of a feedback export and of a judge's choices."""

import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from synthetic.questions.unanswerable import REFUSAL
from synthetic.slide_truth import slide_truth
from training.errors import TrainingError
from training.preference.from_feedback import pairs_from_feedback
from training.preference.from_judge import Candidates, JudgeEndpoint, ask_endpoint, judged_pairs
from training.preference.from_truth import pairs_from_truth, shuffled
from training.preference.pairs import PreferencePair, read_pairs, user, write_pairs

SLIDE = "a" * 64


def feedback(answer: str, verdict: str, **more: object) -> dict[str, object]:
    given = {
        "object": "feedback",
        "slide_id": SLIDE,
        "conversation_id": f"conv_{answer}_{verdict}",
        "turn": 1,
        "question": "Is there necrosis?",
        "answer": answer,
        "model": "demo",
        "verdict": verdict,
        "words": None,
    }
    return {**given, **more}


def exported(tmp_path: Path, *lines: dict[str, object]) -> Path:
    path = tmp_path / "feedback.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_pairs_come_back_as_they_were_written(tmp_path: Path) -> None:
    truths = [(f"slide-{seed}", slide_truth(seed)) for seed in range(20)]
    pairs = list(pairs_from_truth(truths, [("slide-0", "r", slide_truth(0))], 60, 0.3, seed=1))

    assert write_pairs(tmp_path / "pairs.jsonl", pairs) == 60
    assert read_pairs(tmp_path / "pairs.jsonl") == pairs


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"messages": [], "slide": "a", "chosen": "x", "rejected": "y", "origin": "z"}', "line 2: messages"),
        ("nonsense", "line 2: Invalid JSON"),
        (
            '{"messages": [{"role": "assistant", "content": "a"}], "slide": "a", "chosen": "x", "rejected": "y", '
            '"origin": "z"}',
            "by turns",
        ),
        (
            '{"messages": [{"role": "user", "content": "a"}], "slide": "a", "chosen": "x", "rejected": "x", '
            '"origin": "z"}',
            "are the same",
        ),
    ],
)
def test_a_line_that_is_no_pair_is_named(line: str, fault: str, tmp_path: Path) -> None:
    good = PreferencePair(messages=(user("?"),), slide="a", chosen="Yes", rejected="No", origin="x")
    path = tmp_path / "pairs.jsonl"
    path.write_text(f"{good.model_dump_json()}\n{line}\n")

    with pytest.raises(TrainingError, match=fault):
        read_pairs(path)


def test_of_truth_the_chosen_answer_is_true_and_regions_are_asked_about_in_equal_shares() -> None:
    truths = [(f"slide-{seed}", slide_truth(seed)) for seed in range(40)]
    regions = [(name, f"{name}-r", truth) for name, truth in truths]

    pairs = list(pairs_from_truth(truths, regions, 900, 0.5, seed=2))

    said = {pair.chosen for pair in pairs if pair.region}
    assert said == {"Yes", "No"}
    assert all(pair.chosen != pair.rejected for pair in pairs)
    assert any(pair.chosen == REFUSAL for pair in pairs)
    assert any(pair.rejected == REFUSAL and pair.chosen in ("Yes", "No") for pair in pairs)
    by_name = dict(truths)
    for pair in pairs:
        if (
            pair.region
            and "no " not in pair.messages[-1].content.lower()
            and pair.messages[-1].content.startswith("Is there")
        ):
            assert pair.chosen == ("Yes" if by_name[pair.slide].necrosis else "No")


def test_shuffled_turns_about_half_round() -> None:
    pairs = list(pairs_from_truth([("a", slide_truth(3))], [], 200, 0.0, seed=3))

    turned = shuffled(pairs, seed=4)

    changed = np.array([one.chosen != other.chosen for one, other in zip(pairs, turned, strict=True)])
    assert 60 < changed.sum() < 140
    assert all(
        {one.chosen, one.rejected} == {other.chosen, other.rejected} for one, other in zip(pairs, turned, strict=True)
    )


def test_agreement_and_disagreement_on_one_question_are_a_pair(tmp_path: Path) -> None:
    path = exported(tmp_path, feedback("Yes", "agree"), feedback("No", "disagree"), feedback("Perhaps", "unsure"))

    found = pairs_from_feedback(path, "demo", words_are_answers=False)

    assert [(pair.chosen, pair.rejected, pair.slide) for pair in found.pairs] == [("Yes", "No", SLIDE)]
    assert found.counts.left_out == {
        "are unsure": 1,
        "were agreed with, and there is no worse answer to the same question": 0,
    } or (found.counts.left_out == {"are unsure": 1})


def test_words_are_taken_for_answers_only_where_somebody_says_so(tmp_path: Path) -> None:
    path = exported(tmp_path, feedback("No", "disagree", words="Yes, in the lower left quadrant."))

    assert not pairs_from_feedback(path, "demo", words_are_answers=False).pairs
    (pair,) = pairs_from_feedback(path, "demo", words_are_answers=True).pairs
    assert (pair.chosen, pair.rejected) == ("Yes, in the lower left quadrant.", "No")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([feedback("Yes", "agree", model="other")], "are of another model"),
        ([feedback("Yes", "agree", turn=3)], "are later turns"),
        ([{"object": "feedback.damaged"}], "could not be read"),
        ([feedback("Yes", "agree")], "no worse answer"),
        ([feedback("Yes", "agree"), feedback("Yes", "disagree")], "others agreed with"),
        ([feedback("No", "disagree"), feedback("Yes", "agree", region_id="r")], "no better answer"),
    ],
)
def test_what_is_left_out_is_counted_with_its_reason(
    lines: list[dict[str, object]], reason: str, tmp_path: Path
) -> None:
    found = pairs_from_feedback(exported(tmp_path, *lines), "demo", words_are_answers=False)

    assert not found.pairs
    assert reason in found.counts.text()


def test_a_verdict_that_was_changed_counts_as_it_was_last(tmp_path: Path) -> None:
    earlier = feedback("No", "agree", conversation_id="conv_1")
    path = exported(tmp_path, earlier, {**earlier, "verdict": "disagree"}, feedback("Yes", "agree"))

    (pair,) = pairs_from_feedback(path, "demo", words_are_answers=False).pairs

    assert (pair.chosen, pair.rejected) == ("Yes", "No")


def candidates(*answers: str, reference: str | None = None) -> Candidates:
    return Candidates(messages=(user("What grade?"),), slide="s", answers=(answers[0], answers[1]), reference=reference)


def test_a_judge_is_asked_in_both_orders_and_kept_where_it_agrees_with_itself() -> None:
    def prefers_refusals(system: str, text: str) -> str:
        return "<think>B? no</think>A" if "A: I cannot" in text else "B"

    pairs, counts = judged_pairs([candidates("Grade 2.", "I cannot tell.")], prefers_refusals, "llama")

    assert [(pair.chosen, pair.rejected, pair.origin) for pair in pairs] == [
        ("I cannot tell.", "Grade 2.", "judge: llama")
    ]
    assert counts.pairs == 1


@pytest.mark.parametrize(
    ("reply", "reason"),
    [("A", "by the place"), ("=", "as good as each other"), ("The first one.", "no readable choice")],
)
def test_a_judge_without_a_choice_makes_no_pair(reply: str, reason: str) -> None:
    pairs, counts = judged_pairs([candidates("One.", "Two.")], lambda system, text: reply, "llama")

    assert not pairs
    assert reason in counts.text()


def test_an_endpoint_is_asked_as_openais_is() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"choices": [{"message": {"content": "A"}}]})

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        ask = ask_endpoint(JudgeEndpoint("http://judge/v1/", "llama", key="k"), client)
        assert ask("system", "text") == "A"

    body = json.loads(asked[0].content)
    assert str(asked[0].url) == "http://judge/v1/chat/completions"
    assert asked[0].headers["Authorization"] == "Bearer k"
    assert (body["model"], body["temperature"]) == ("llama", 0)


@pytest.mark.parametrize(
    "response", [httpx.Response(500), httpx.Response(200, text="<html>"), httpx.Response(200, json={"choices": []})]
)
def test_a_judge_that_does_not_answer_says_so(response: httpx.Response) -> None:
    with httpx.Client(transport=httpx.MockTransport(lambda request: response)) as client:
        ask = ask_endpoint(JudgeEndpoint("http://judge/v1", "llama"), client)
        with pytest.raises(TrainingError, match="judge"):
            ask("system", "text")
