"""Conversations: turns in order, under one tenant and one slide, forgotten for good."""

import asyncio

import pytest
from redis.asyncio import Redis

from server.asking.conversations import Conversation, Conversations
from server.errors import ConversationDamaged, NotFound, QueueUnavailable, WrongConversation
from server.settings import Settings
from server.storage.redis_client import connect_redis

SLIDE, OTHER_SLIDE = "0" * 64, "1" * 64


@pytest.fixture
def conversations(redis: Redis) -> Conversations:
    return Conversations(redis, ttl_s=60)


async def asked(conversations: Conversations, tenant: str = "a", slide: str = SLIDE) -> Conversation:
    conversation = conversations.start(slide)
    await conversations.add_turn(tenant, conversation, "First?", "One.")
    return await conversations.require(tenant, conversation.id)


async def test_turns_are_remembered_in_order(conversations: Conversations) -> None:
    conversation = await asked(conversations)
    await conversations.add_turn("a", conversation, "Second?", "Two.")

    found = await conversations.continue_or_start("a", SLIDE, conversation.id)

    assert [(turn.question, turn.answer) for turn in found.turns] == [("First?", "One."), ("Second?", "Two.")]
    assert (found.slide_id, found.created_at) == (SLIDE, conversation.created_at)


async def test_nothing_is_stored_before_the_first_answer(conversations: Conversations, redis: Redis) -> None:
    started = await conversations.continue_or_start("a", SLIDE, None)

    assert started.turns == ()
    assert await redis.dbsize() == 0
    with pytest.raises(NotFound):
        await conversations.require("a", started.id)


async def test_two_follow_ups_at_once_both_count(conversations: Conversations) -> None:
    conversation = await asked(conversations)

    await asyncio.gather(*(conversations.add_turn("a", conversation, f"{n}?", f"{n}.") for n in range(5)))

    found = await conversations.require("a", conversation.id)
    assert sorted(turn.question for turn in found.turns[1:]) == [f"{n}?" for n in range(5)]


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

    await conversations.add_turn("a", conversation, "Late?", "Yes.")

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


async def test_redis_away_is_told_in_our_words(settings_without_redis: Settings) -> None:
    redis = connect_redis(settings_without_redis)
    conversations = Conversations(redis, 60)

    with pytest.raises(QueueUnavailable):
        await conversations.add_turn("a", conversations.start(SLIDE), "First?", "One.")
    await redis.aclose()
