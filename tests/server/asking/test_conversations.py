"""Conversations: turns in order, under one tenant and one slide, forgotten for good."""

import asyncio

import pytest
from redis.asyncio import Redis

from server.asking.conversations import Conversation, Conversations, Turn
from server.errors import ConversationDamaged, InvalidRequest, NotFound, QueueUnavailable, WrongConversation
from server.settings import Settings
from server.slides.slide_record import now
from server.storage.redis_client import connect_redis

SLIDE, OTHER_SLIDE = "0" * 64, "1" * 64


@pytest.fixture
def conversations(redis: Redis) -> Conversations:
    return Conversations(redis, ttl_s=60)


def turn(question: str, answer: str, model: str | None = "demo") -> Turn:
    return Turn(question=question, answer=answer, model=model, created_at=now())


async def asked(conversations: Conversations, tenant: str = "a", slide: str = SLIDE) -> Conversation:
    conversation = conversations.start(slide)
    await conversations.add_turn(tenant, conversation, turn("First?", "One."))
    return await conversations.require(tenant, conversation.id)


async def test_turns_are_remembered_in_order(conversations: Conversations) -> None:
    conversation = await asked(conversations)
    await conversations.add_turn("a", conversation, turn("Second?", "Two."))

    found = await conversations.continue_or_start("a", SLIDE, conversation.id)

    told = [(it.number, it.question, it.answer) for it in found.turns]
    assert told == [(1, "First?", "One."), (2, "Second?", "Two.")]
    assert (found.slide_id, found.created_at) == (SLIDE, conversation.created_at)


async def test_nothing_is_stored_before_the_first_answer(conversations: Conversations, redis: Redis) -> None:
    started = await conversations.continue_or_start("a", SLIDE, None)

    assert started.turns == ()
    assert await redis.dbsize() == 0
    with pytest.raises(NotFound):
        await conversations.require("a", started.id)


async def test_two_follow_ups_at_once_both_count(conversations: Conversations) -> None:
    conversation = await asked(conversations)

    numbers = await asyncio.gather(
        *(conversations.add_turn("a", conversation, turn(f"{n}?", f"{n}.")) for n in range(5))
    )

    assert sorted(numbers) == [2, 3, 4, 5, 6]  # type: ignore[type-var]
    found = await conversations.require("a", conversation.id)
    assert sorted(it.question for it in found.turns[1:]) == [f"{n}?" for n in range(5)]


async def test_a_conversation_about_another_slide_is_refused(conversations: Conversations) -> None:
    conversation = await asked(conversations)

    with pytest.raises(WrongConversation):
        await conversations.continue_or_start("a", OTHER_SLIDE, conversation.id)


@pytest.mark.parametrize(
    "conversation_id", ["", "conv_", "conv_" + "x" * 22, "conv_" + "x" * 22 + "\n", "*", "events:x", "conv_" + "*" * 22]
)
async def test_an_unknown_conversation_is_not_found(conversations: Conversations, conversation_id: str) -> None:
    await asked(conversations)

    with pytest.raises(NotFound):
        await conversations.require("a", conversation_id)


async def test_another_tenant_has_no_such_conversation(conversations: Conversations) -> None:
    conversation = await asked(conversations)

    with pytest.raises(NotFound):
        await conversations.require("b", conversation.id)
    with pytest.raises(NotFound):
        await conversations.forget("b", conversation.id)
    assert (await conversations.require("a", conversation.id)).turns


async def test_a_forgotten_conversation_is_gone(conversations: Conversations, redis: Redis) -> None:
    conversation = await asked(conversations)

    await conversations.forget("a", conversation.id)

    assert await redis.dbsize() == 0
    with pytest.raises(NotFound):
        await conversations.forget("a", conversation.id)


async def test_an_answer_that_comes_after_forgetting_brings_nothing_back(
    conversations: Conversations, redis: Redis
) -> None:
    conversation = await asked(conversations)
    await conversations.forget("a", conversation.id)

    assert await conversations.add_turn("a", conversation, turn("Late?", "Yes.")) is None

    assert await redis.dbsize() == 0
    with pytest.raises(NotFound):
        await conversations.require("a", conversation.id)


async def test_forgetting_a_slide_forgets_its_conversations_only(conversations: Conversations) -> None:
    about = [await asked(conversations) for _ in range(3)]
    other = await asked(conversations, slide=OTHER_SLIDE)
    theirs = await asked(conversations, tenant="b")

    await conversations.forget_slide("a", SLIDE)

    for conversation in about:
        with pytest.raises(NotFound):
            await conversations.require("a", conversation.id)
    assert (await conversations.require("a", other.id)).turns
    assert (await conversations.require("b", theirs.id)).turns


@pytest.mark.parametrize("place", [0, 1])
async def test_a_damaged_conversation_is_said_to_be_and_can_be_forgotten(
    conversations: Conversations, redis: Redis, place: int
) -> None:
    conversation = await asked(conversations)
    await redis.lset(f"eyepiece:{{a}}:conversation:{conversation.id}", place, '{"question": ')

    with pytest.raises(ConversationDamaged):
        await conversations.continue_or_start("a", SLIDE, conversation.id)

    await conversations.forget("a", conversation.id)
    with pytest.raises(NotFound):
        await conversations.require("a", conversation.id)


async def test_conversations_forget_themselves(conversations: Conversations, redis: Redis) -> None:
    await asked(conversations)

    for key in await redis.keys("*"):
        assert 0 < await redis.ttl(key) <= 60


async def test_a_slides_conversations_are_listed_the_last_used_first(conversations: Conversations) -> None:
    first = await asked(conversations)
    second = await asked(conversations)
    await asked(conversations, slide=OTHER_SLIDE)
    await asked(conversations, tenant="b")
    await conversations.add_turn("a", first, turn("And?" + " why" * 200, "So.", model="other"))

    page = await conversations.page("a", SLIDE, "", 20)

    assert [it.id for it in page.conversations] == [first.id, second.id]
    told = page.conversations[0]
    assert (told.title, told.turns, told.model, told.created_at) == ("First?", 2, "other", first.created_at)
    assert told.updated_at >= page.conversations[1].updated_at
    assert page.next_cursor is None


async def test_pages_hold_each_conversation_once_also_those_of_one_moment(
    conversations: Conversations, redis: Redis
) -> None:
    ids = {(await asked(conversations)).id for _ in range(9)}
    listed = f"eyepiece:{{a}}:conversations-by-time:{SLIDE}"
    moment = (await redis.zrange(listed, 0, 0, withscores=True))[0][1]
    await redis.zadd(listed, {name: moment for name in list(ids)[:7]})

    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await conversations.page("a", SLIDE, cursor, 2)
        seen += [it.id for it in page.conversations]
        cursor = page.next_cursor

    assert sorted(seen) == sorted(ids)


async def test_a_long_first_question_is_shortened_to_a_title(conversations: Conversations) -> None:
    conversation = conversations.start(SLIDE)
    await conversations.add_turn("a", conversation, turn("What\nis " + "x" * 7000, "So."))

    (told,) = (await conversations.page("a", SLIDE, "", 1)).conversations

    assert told.title is not None
    assert (told.title[:9], told.title[-1], len(told.title)) == ("What is x", "…", 120)


@pytest.mark.parametrize("place", [0, 1])
async def test_a_damaged_conversation_is_listed_without_what_it_says(
    conversations: Conversations, redis: Redis, place: int
) -> None:
    conversation = await asked(conversations)
    await redis.lset(f"eyepiece:{{a}}:conversation:{conversation.id}", place, '{"question": ')

    (told,) = (await conversations.page("a", SLIDE, "", 20)).conversations

    assert (told.id, told.title, told.turns, told.model, told.created_at) == (conversation.id, None, 0, None, None)


async def test_what_redis_has_dropped_is_listed_no_more(conversations: Conversations, redis: Redis) -> None:
    kept, dropped = await asked(conversations), await asked(conversations)
    await redis.delete(f"eyepiece:{{a}}:conversation:{dropped.id}")

    assert [it.id for it in (await conversations.page("a", SLIDE, "", 20)).conversations] == [kept.id]
    assert await redis.zcard(f"eyepiece:{{a}}:conversations-by-time:{SLIDE}") == 1


async def test_what_has_expired_leaves_the_list_with_the_next_turn(conversations: Conversations, redis: Redis) -> None:
    old = await asked(conversations)
    listed = f"eyepiece:{{a}}:conversations-by-time:{SLIDE}"
    await redis.zadd(listed, {old.id: 1})

    assert (await conversations.page("a", SLIDE, "", 20)).conversations == []
    new = await asked(conversations)
    assert await redis.zrange(listed, 0, -1) == [new.id.encode()]


async def test_conversations_that_an_older_release_noted_go_with_their_slide(
    conversations: Conversations, redis: Redis
) -> None:
    old = await asked(conversations)
    await redis.delete(f"eyepiece:{{a}}:conversations-by-time:{SLIDE}")
    await redis.sadd(f"eyepiece:{{a}}:conversations-of:{SLIDE}", old.id)

    await conversations.forget_slide("a", SLIDE)

    assert await redis.dbsize() == 0


@pytest.mark.parametrize("cursor", ["x", "1764382320123-conv_x", "*", "1764382320123-" + "x" * 64])
async def test_a_cursor_of_somebody_elses_is_refused(conversations: Conversations, cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        await conversations.page("a", SLIDE, cursor, 20)


async def test_redis_away_is_told_in_our_words(settings_without_redis: Settings) -> None:
    redis = connect_redis(settings_without_redis)
    conversations = Conversations(redis, 60)

    with pytest.raises(QueueUnavailable):
        await conversations.add_turn("a", conversations.start(SLIDE), turn("First?", "One."))
    await redis.aclose()
