"""The turns of a conversation about one slide, kept in Redis under its tenant until unused for long enough."""

import contextlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from server.errors import ConversationDamaged, NotFound, QueueUnavailable, WrongConversation
from server.slides.slide_record import now

_ID_PATTERN = re.compile(r"conv_[A-Za-z0-9_-]{22}")


class Turn(BaseModel):
    """A question and its answer."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    question: str
    answer: str
    model: str | None = Field(None, description="The model that answered; null for turns of older releases.")
    created_at: datetime


class Conversation(BaseModel):
    """Questions about one slide, and their answers."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    id: str
    object: Literal["conversation"] = "conversation"
    slide_id: str = Field(description="The slide that all of it is about.")
    created_at: datetime
    turns: tuple[Turn, ...] = Field(default=(), description="Oldest first.")


class _Head(BaseModel):
    slide_id: str
    created_at: datetime


@dataclass(frozen=True)
class _Keys:
    tenant: str

    def turns(self, conversation_id: str) -> str:
        return f"eyepiece:{{{self.tenant}}}:conversation:{conversation_id}"

    def of_slide(self, slide_id: str) -> str:
        return f"eyepiece:{{{self.tenant}}}:conversations-of:{slide_id}"


class Conversations:
    """A Redis list each: the head first, then the turns, so that two turns at once cannot overwrite each other."""

    def __init__(self, redis: Redis, ttl_s: int) -> None:
        self._redis = redis
        self._ttl_s = ttl_s

    def start(self, slide_id: str) -> Conversation:
        """A new conversation; nothing is stored before its first turn."""
        return Conversation(id=f"conv_{secrets.token_urlsafe(16)}", slide_id=slide_id, created_at=now())

    async def require(self, tenant: str, conversation_id: str) -> Conversation:
        """The conversation.

        Raises:
            NotFound: this tenant has no such conversation, or it was forgotten.
            ConversationDamaged: what is kept of it cannot be read.
        """
        entries = await self._entries(tenant, conversation_id)
        try:
            head = _Head.model_validate_json(entries[0])
            turns = tuple(Turn.model_validate_json(entry) for entry in entries[1:])
        except ValidationError as error:
            raise ConversationDamaged(
                "What is kept of this conversation cannot be read; delete it, and ask without conversation_id."
            ) from error
        return Conversation(id=conversation_id, slide_id=head.slide_id, created_at=head.created_at, turns=turns)

    async def _entries(self, tenant: str, conversation_id: str) -> list[Any]:
        """The head and the turns as they are kept; at least one."""
        entries: list[Any] = []
        if _ID_PATTERN.fullmatch(conversation_id):
            try:
                entries = await self._redis.lrange(_Keys(tenant).turns(conversation_id), 0, -1)
            except ResponseError:  # something else lies under the key
                entries = [b""]
        if not entries:
            raise NotFound("There is no such conversation; ask without conversation_id to start one.")
        return entries

    async def continue_or_start(self, tenant: str, slide_id: str, conversation_id: str | None) -> Conversation:
        """The conversation to ask in.

        Raises:
            NotFound: unknown id.
            WrongConversation: it is about another slide.
        """
        if conversation_id is None:
            return self.start(slide_id)
        conversation = await self.require(tenant, conversation_id)
        if conversation.slide_id != slide_id:
            raise WrongConversation("This conversation is about another slide; start a new one.")
        return conversation

    async def add_turn(
        self, tenant: str, conversation: Conversation, question: str, answer: str, model: str | None = None
    ) -> bool:
        """Remember a finished turn; False, and nothing is stored, when the conversation was forgotten meanwhile.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        keys = _Keys(tenant)
        key = keys.turns(conversation.id)
        turn = Turn(question=question, answer=answer, model=model, created_at=now())
        head = _Head(slide_id=conversation.slide_id, created_at=conversation.created_at)
        async with self._redis.pipeline(transaction=True) as pipe:
            starts = not conversation.turns
            if starts:
                pipe.rpush(key, head.model_dump_json())
                pipe.sadd(keys.of_slide(conversation.slide_id), conversation.id)
            pipe.rpushx(key, turn.model_dump_json())
            pipe.expire(key, self._ttl_s)
            pipe.expire(keys.of_slide(conversation.slide_id), self._ttl_s)
            try:
                results = await pipe.execute()
            except RedisError as error:
                raise QueueUnavailable("The answer could not be remembered; ask again shortly.") from error
        return bool(results[2 if starts else 0])  # the length after rpushx, 0 where there is no list

    async def forget(self, tenant: str, conversation_id: str) -> None:
        """Delete the conversation, readable or not.

        Raises:
            NotFound: there is none.
        """
        entries = await self._entries(tenant, conversation_id)
        keys = _Keys(tenant)
        await self._redis.delete(keys.turns(conversation_id))
        with contextlib.suppress(ValidationError):  # else its slide's list names one that is gone, until it expires
            await self._redis.srem(keys.of_slide(_Head.model_validate_json(entries[0]).slide_id), conversation_id)

    async def forget_slide(self, tenant: str, slide_id: str) -> None:
        """Delete every conversation about a slide that is being deleted."""
        keys = _Keys(tenant)
        members: Any = await self._redis.smembers(keys.of_slide(slide_id))
        for member in members:
            await self._redis.delete(keys.turns(member.decode()))
        await self._redis.delete(keys.of_slide(slide_id))
