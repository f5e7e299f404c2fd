"""As many of the newest turns as fit go along with a question; nothing that is opened on the way stays open."""

from datetime import UTC, datetime

import pytest

from model_store.manifest import LlmSpec, packaged_manifest
from server.asking.conversations import Conversation, Turn
from server.asking.fit_conversation import open_dropping_old_turns, turns_beyond_budget, turns_beyond_training
from server.errors import LanguageModelUnavailable, QuestionTooLong

SPEC = packaged_manifest("wsi-llava").llm
SLIDE_TOKENS = 576


def conversation(*answers: str) -> Conversation:
    made = datetime(2026, 11, 21, tzinfo=UTC)
    turns = tuple(Turn(question="Which grade?", answer=answer, created_at=made) for answer in answers)
    return Conversation(id="c", slide_id="s", created_at=made, turns=turns)


def beyond(talk: Conversation, *, question: str = "Why?", max_tokens: int = 2048, spec: LlmSpec = SPEC) -> int:
    return turns_beyond_budget(talk, question, SLIDE_TOKENS, max_tokens, spec)


def test_a_short_conversation_goes_along_whole() -> None:
    assert beyond(conversation()) == 0
    assert beyond(conversation(*["Grade 2."] * 10)) == 0


def test_the_oldest_turns_make_room_for_an_answer() -> None:
    talk = conversation(*["x" * 900] * 10)

    assert beyond(talk) == 6  # 1,400 of 2,048 tokens are left beside the slide; a turn is about 316
    assert beyond(talk, question="x" * 1200) == 7
    assert beyond(talk, max_tokens=64) == 0


def test_a_turn_that_does_not_fit_hides_all_before_it() -> None:
    assert beyond(conversation("short", "x" * 9000, "short", "short")) == 2


def test_an_answer_never_reserves_more_than_half_of_the_context() -> None:
    assert beyond(conversation("x" * 900), max_tokens=SPEC.max_model_len) == 0


def test_a_question_that_fills_the_room_leaves_all_turns_out_and_is_still_asked() -> None:
    assert beyond(conversation("a", "b"), question="x" * 8000) == 2


@pytest.mark.parametrize(
    ("turns", "trained", "left_out"), [(0, 1, 0), (7, 8, 0), (8, 8, 1), (39, 8, 32), (99, None, 0)]
)
def test_a_conversation_with_its_question_is_no_longer_than_in_training(
    turns: int, trained: int | None, left_out: int
) -> None:
    assert turns_beyond_training(turns, trained) == left_out


class FakeAnswer:
    """Knows whether it was closed."""

    def __init__(self) -> None:
        self.open = True

    async def close(self) -> None:
        self.open = False


class FakeModel:
    """Fits when at least `needed` of the oldest turns are left out; then fails instead, if `failing`."""

    def __init__(self, needed: int, failing: int | None = None) -> None:
        self.needed, self.failing = needed, failing
        self.asked: list[int] = []
        self.answers: list[FakeAnswer] = []

    async def open_without(self, left_out: int) -> FakeAnswer:
        self.asked.append(left_out)
        if left_out == self.failing:
            raise LanguageModelUnavailable("away")
        if left_out < self.needed:
            raise QuestionTooLong("too long")
        self.answers.append(FakeAnswer())
        return self.answers[-1]


@pytest.mark.parametrize("needed", range(18))
@pytest.mark.parametrize("start", [0, 5])
async def test_no_more_turns_are_left_out_than_must_be(needed: int, start: int) -> None:
    model = FakeModel(needed)

    fitting = await open_dropping_old_turns(model.open_without, 17, start)  # type: ignore[arg-type]  # stands in for an Answer

    assert fitting.turns_left_out == max(needed, start)
    assert [answer for answer in model.answers if answer.open] == [fitting.answer]
    assert len(model.asked) <= 7


async def test_what_fits_at_once_is_asked_once() -> None:
    model = FakeModel(0)
    await open_dropping_old_turns(model.open_without, 17, 0)  # type: ignore[arg-type]

    assert model.asked == [0]


@pytest.mark.parametrize("turns", [0, 1, 9])
async def test_a_question_that_does_not_fit_alone_is_refused(turns: int) -> None:
    model = FakeModel(turns + 1)

    with pytest.raises(QuestionTooLong):
        await open_dropping_old_turns(model.open_without, turns, 0)  # type: ignore[arg-type]

    assert model.asked[-1] == turns
    assert len(model.asked) <= 2


async def test_a_failure_on_the_way_leaves_nothing_open() -> None:
    model = FakeModel(needed=3, failing=5)

    with pytest.raises(LanguageModelUnavailable):
        await open_dropping_old_turns(model.open_without, 10, 0)  # type: ignore[arg-type]

    assert not [answer for answer in model.answers if answer.open]
