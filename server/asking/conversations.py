"""The turns of a conversation about one slide, kept in Redis under its tenant until unused for long enough.

    eyepiece:{<tenant>}:conversation:<conversation id>     list: the head, then the turns
    eyepiece:{<tenant>}:conversations-by-time:<slide id>   sorted set: a slide's conversations by their last turn, in ms

A conversation leaves the sorted set when it expires, so that a page of it costs what it shows.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from server.asking.scope import WHOLE, Scope, SlideScope, name_of
from server.errors import ConversationDamaged, InvalidRequest, NotFound, QueueUnavailable, WrongConversation
from server.slides.slide_record import now

_ID = r"conv_[A-Za-z0-9_-]{22}"
_ID_PATTERN = re.compile(_ID)
# A place in a slide's conversations: the last turn's milliseconds, and the conversation.
CURSOR_PATTERN = re.compile(rf"\d{{13}}-{_ID}")
_MOST_TITLE_CHARS = 120
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A turn is appended to a list that is there, or to the one that it begins; nothing is brought back that was forgotten.
# KEYS: the turns, the slide's conversations. ARGV: head or "", turn, conversation id, its ms, the oldest ms, ttl in s.
_ADD_TURN = """
if ARGV[1] ~= '' then redis.call('RPUSH', KEYS[1], ARGV[1]) end
local length = redis.call('RPUSHX', KEYS[1], ARGV[2])
if length == 0 then return 0 end
redis.call('ZADD', KEYS[2], 'GT', ARGV[4], ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[5])
redis.call('EXPIRE', KEYS[1], ARGV[6])
redis.call('EXPIRE', KEYS[2], ARGV[6])
return length - 1
"""


class Turn(BaseModel):
    """A question and its answer."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    number: Annotated[int, Field(description="Its place in the conversation, from 1.", examples=[1])] = 0
    question: str
    answer: str
    model: str | None = Field(None, description="The model that answered; null for turns of older releases.")
    encoder_id: str | None = Field(
        None, description="What the slide's embedding was made by; null for turns of older releases."
    )
    request_id: str | None = Field(
        None, description="`X-Request-Id` of the answer, which names it in the server's log; null where unknown."
    )
    scope: Scope = Field(default_factory=SlideScope, description="What of the slide it is about.")
    given: tuple[int, ...] | None = Field(
        default=None,
        description="Numbers of the earlier turns that the model was given with the question; null for turns of older "
        "releases.",
        examples=[[1, 2]],
    )
    created_at: datetime = Field(description="When the answer was complete.")


class Conversation(BaseModel):
    """Questions about one slide, and their answers."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    id: str
    object: Literal["conversation"] = "conversation"
    slide_id: str = Field(description="The slide that all of it is about.")
    created_at: datetime
    turns: tuple[Turn, ...] = Field(default=(), description="Oldest first.")

    @property
    def named_scope(self) -> str:
        """What its last turn is about, as a question names it."""
        return name_of(self.turns[-1].scope) if self.turns else WHOLE

    def about(self, *names: str) -> "Conversation":
        """Those of its turns that are about one of these scopes, as a question names them."""
        return self.model_copy(update={"turns": tuple(turn for turn in self.turns if name_of(turn.scope) in names)})


class ConversationSummary(BaseModel):
    """A conversation in a list."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    id: str
    object: Literal["conversation.summary"] = "conversation.summary"
    slide_id: str = Field(description="The slide that all of it is about.")
    title: str | None = Field(
        description="The beginning of its first question; null when what is kept of it cannot be read, and it can only "
        "be deleted.",
        examples=["What kind of tissue is this?"],
    )
    turns: int = Field(description="How many it has.", examples=[3])
    model: str | None = Field(description="The model that answered last; null where unknown.", examples=["demo"])
    created_at: datetime | None = Field(description="When it began; null where unknown.")
    updated_at: datetime = Field(description="When its last answer was complete.")


@dataclass(frozen=True)
class ListedConversations:
    """Some of a slide's conversations, the last used first; `next_cursor` is None at the end."""

    conversations: list[ConversationSummary]
    next_cursor: str | None


class _Head(BaseModel):
    slide_id: str
    created_at: datetime


@dataclass(frozen=True)
class _Keys:
    tenant: str

    def turns(self, conversation_id: str) -> str:
        return f"eyepiece:{{{self.tenant}}}:conversation:{conversation_id}"

    def of_slide(self, slide_id: str) -> str:
        return f"eyepiece:{{{self.tenant}}}:conversations-by-time:{slide_id}"

    def of_slide_once(self, slide_id: str) -> str:
        """A set, in which an older release noted them; it is read when they are to be deleted, until it has expired."""
        return f"eyepiece:{{{self.tenant}}}:conversations-of:{slide_id}"


class Conversations:
    """A Redis list each: the head first, then the turns, so that two turns at once cannot overwrite each other."""

    def __init__(self, redis: Redis, ttl_s: int) -> None:
        self._redis = redis
        self._ttl_s = ttl_s
        self._add_turn = redis.register_script(_ADD_TURN)

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
            turns = tuple(
                Turn.model_validate_json(entry).model_copy(update={"number": number})
                for number, entry in enumerate(entries[1:], 1)
            )
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

    async def page(self, tenant: str, slide_id: str, cursor: str, limit: int) -> ListedConversations:
        """Up to `limit` conversations about the slide behind `cursor` ("" is the first page), the last used first. One
        that goes on while a client pages moves to the front.

        Raises:
            InvalidRequest: the cursor is none.
        """
        if cursor and not CURSOR_PATTERN.fullmatch(cursor):
            raise InvalidRequest("This cursor is none of this server's; list again without one.")
        entries = await self._behind(_Keys(tenant).of_slide(slide_id), cursor, limit + 1)
        shown = entries[:limit]
        summaries = await self._summaries(tenant, slide_id, shown)
        return ListedConversations(summaries, _cursor(*shown[-1]) if len(entries) > limit else None)

    async def _behind(self, key: str, cursor: str, most: int) -> list[tuple[int, str]]:
        """Milliseconds and ids of up to `most` conversations behind the cursor; several may share its moment."""
        newest = cursor[:13] or "+inf"
        found: list[tuple[int, str]] = []
        passed = 0
        while len(found) < most:
            asked = most + 1  # the cursor's own among them
            batch: Any = await self._redis.zrevrangebyscore(
                key, newest, _ms(now() - timedelta(seconds=self._ttl_s)), start=passed, num=asked, withscores=True
            )
            entries = [(int(ms), member.decode()) for member, ms in batch]
            found += [entry for entry in entries if not cursor or _cursor(*entry) < cursor]
            passed += len(batch)
            if len(batch) < asked:
                break
        return found[:most]

    async def _summaries(
        self, tenant: str, slide_id: str, entries: Sequence[tuple[int, str]]
    ) -> list[ConversationSummary]:
        """What a list shows of conversations; those that Redis has dropped are left out, and are listed no more."""
        keys = _Keys(tenant)
        async with self._redis.pipeline(transaction=False) as pipe:
            for _, conversation_id in entries:
                key = keys.turns(conversation_id)
                pipe.llen(key)
                for place in (0, 1, -1):
                    pipe.lindex(key, place)
            told = await pipe.execute(raise_on_error=False)
        shown: list[ConversationSummary] = []
        for number, (ms, conversation_id) in enumerate(entries):
            length, *texts = told[4 * number : 4 * number + 4]
            if length == 0:
                await self._redis.zrem(keys.of_slide(slide_id), conversation_id)
                continue
            title, model, created_at = _told_by(*texts)
            shown.append(
                ConversationSummary(
                    id=conversation_id,
                    slide_id=slide_id,
                    title=title,
                    turns=0 if title is None else length - 1,
                    model=model,
                    created_at=created_at,
                    updated_at=_EPOCH + timedelta(milliseconds=ms),
                )
            )
        return shown

    async def add_turn(self, tenant: str, conversation: Conversation, turn: Turn) -> int | None:
        """Remember a finished turn; its number in the conversation, None, and nothing is stored, when the conversation
        was forgotten meanwhile.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        keys = _Keys(tenant)
        head = _Head(slide_id=conversation.slide_id, created_at=conversation.created_at)
        moment = now()
        oldest = _ms(moment - timedelta(seconds=self._ttl_s))
        beginning = "" if conversation.turns else head.model_dump_json()
        said = turn.model_dump_json(exclude={"number"})
        try:
            number = await self._add_turn(
                keys=[keys.turns(conversation.id), keys.of_slide(conversation.slide_id)],
                args=[beginning, said, conversation.id, _ms(moment), oldest, self._ttl_s],
            )
        except RedisError as error:
            raise QueueUnavailable("The answer could not be remembered; ask again shortly.") from error
        return int(number) or None

    async def slide_of(self, tenant: str, conversation_id: str) -> str | None:
        """The slide that it is about; None when that cannot be read.

        Raises:
            NotFound: as `require`.
        """
        entries = await self._entries(tenant, conversation_id)
        try:
            return _Head.model_validate_json(entries[0]).slide_id
        except ValidationError:
            return None

    async def forget(self, tenant: str, conversation_id: str) -> None:
        """Delete the conversation, readable or not.

        Raises:
            NotFound: there is none.
        """
        slide_id = await self.slide_of(tenant, conversation_id)
        keys = _Keys(tenant)
        await self._redis.delete(keys.turns(conversation_id))
        if slide_id is not None:  # else its slide's list names one that is gone, until it is looked at
            await self._redis.zrem(keys.of_slide(slide_id), conversation_id)
            await self._redis.srem(keys.of_slide_once(slide_id), conversation_id)

    async def forget_slide(self, tenant: str, slide_id: str) -> None:
        """Delete every conversation about a slide that is being deleted."""
        keys = _Keys(tenant)
        listed: Any = await self._redis.zrange(keys.of_slide(slide_id), 0, -1)
        noted: Any = await self._redis.smembers(keys.of_slide_once(slide_id))
        for member in {*listed, *noted}:
            await self._redis.delete(keys.turns(member.decode()))
        await self._redis.delete(keys.of_slide(slide_id), keys.of_slide_once(slide_id))


def _ms(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _cursor(ms: int, conversation_id: str) -> str:
    """In the order of the sorted set: by time, then by id."""
    return f"{ms:013d}-{conversation_id}"


def _told_by(head: Any, first: Any, last: Any) -> tuple[str | None, str | None, datetime | None]:
    """Title, last model and beginning of a conversation by its head, first and last turn; None where damaged."""
    try:
        title = _title(Turn.model_validate_json(first).question)
        return title, Turn.model_validate_json(last).model, _Head.model_validate_json(head).created_at
    except (ValidationError, TypeError):
        return None, None, None


def _title(question: str) -> str:
    line = " ".join(question.split())
    return line if len(line) <= _MOST_TITLE_CHARS else f"{line[: _MOST_TITLE_CHARS - 1]}…"
