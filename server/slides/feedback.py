"""Feedback: what people thought of an answer, kept beside its slide with the question and the answer as they were then.

    tenants/<tenant>/slides/<slide id>/feedback/<conversation id>/<6 digits of the turn>.json
    index/feedback/<tenant>/<5 digits>/<2 digits>/<6 digits>-<slide id>-<conversation id>-<6 digits of the turn>

The first digits of an entry are the milliseconds of its last change, so that an export costs what it gives. An entry
may be one too many, never one too few: it is written before what it tells of, and taken away after. An export passes
over those that tell of nothing, and removes old ones.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from server.slides.slide_record import now
from server.storage.slide_store import SlidePaths, SlideStore, require_tenant_name

Verdict = Literal["agree", "disagree", "unsure"]
MOST_TURNS = 999_999
_ENTRY = re.compile(r"(\d{13})-([0-9a-f]{64})-(conv_[A-Za-z0-9_-]{22})-(\d{6})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ENTRIES_AT_ONCE = 500
_READ_AT_ONCE = 32
# Longer than any writing of feedback takes between its entry and its record.
_STALE_AFTER = timedelta(hours=1)


@dataclass(frozen=True)
class TurnName:
    """Which turn is meant."""

    slide_id: str
    conversation_id: str
    turn: int


class FeedbackRecord(BaseModel):
    """What somebody thought of a turn. Question, answer and words can hold whatever people typed."""

    model_config = ConfigDict(frozen=True, extra="allow")

    format_version: int = 1
    slide_id: str
    conversation_id: str
    turn: int
    question: str
    answer: str
    model: str | None = None
    encoder_id: str | None = None
    request_id: str | None = None
    region_id: str | None = None
    answered_at: AwareDatetime
    verdict: Verdict
    words: str | None = None
    given_at: AwareDatetime

    @property
    def name(self) -> TurnName:
        """The turn that it is about."""
        return TurnName(self.slide_id, self.conversation_id, self.turn)


class FeedbackShelf:
    """The feedback of all tenants. Whoever writes holds the slide's lock (`SlideCatalogue.lock`)."""

    def __init__(self, store: SlideStore) -> None:
        self._store = store

    async def find(self, tenant: str, name: TurnName) -> FeedbackRecord | None:
        """What was given for the turn; None when nothing was, or it cannot be read."""
        content = await self._store.get(_key(tenant, name))
        return None if content is None else _parsed(content, name)

    async def put(self, tenant: str, record: FeedbackRecord) -> int:
        """Keep it in place of what was given before; by how many bytes the store has grown."""
        key = _key(tenant, record.name)
        before = await self._store.get(key)
        content = record.model_dump_json().encode()
        await self._store.put(_entry_key(tenant, _entry(record)), b"")
        await self._store.put(key, content)
        replaced = None if before is None else _parsed(before, record.name)
        if replaced is not None and _entry(replaced) != _entry(record):
            await self._store.discard(_entry_key(tenant, _entry(replaced)))
        return len(content) - len(before or b"")

    async def remove(self, tenant: str, name: TurnName) -> int:
        """Delete it; how many bytes that were, 0 when there was none."""
        return await self._remove(tenant, f"{SlidePaths(tenant, name.slide_id).feedback}/{_path(name)}")

    async def remove_conversation(self, tenant: str, slide_id: str, conversation_id: str) -> int:
        """Delete all that was given for a conversation; how many bytes that were."""
        return await self._remove_below(tenant, f"{SlidePaths(tenant, slide_id).feedback}/{conversation_id}")

    async def remove_slide(self, tenant: str, slide_id: str) -> int:
        """Delete all that was given for a slide; how many bytes that were."""
        return await self._remove_below(tenant, SlidePaths(tenant, slide_id).feedback)

    async def since(self, tenant: str, moment: datetime | None) -> AsyncIterator[FeedbackRecord | TurnName]:
        """Everything that was given or changed at `moment` or later, in that order; of what cannot be read, the name.
        What is changed meanwhile may come twice, the later one last."""
        folder = _index(tenant)
        # Behind everything before: a slash comes before each digit, and "-" before "/".
        after = "" if moment is None else _split(f"{max(0, _ms(moment)):013d}")
        while paths := await self._store.keys_after(folder, after, _ENTRIES_AT_ONCE):
            after = paths[-1]
            entries = [entry for entry in (path.replace("/", "") for path in paths) if _ENTRY.fullmatch(entry)]
            for begin in range(0, len(entries), _READ_AT_ONCE):
                some = entries[begin : begin + _READ_AT_ONCE]
                for found in await asyncio.gather(*(self._told_by(tenant, entry) for entry in some)):
                    if found is not None:
                        yield found

    async def _told_by(self, tenant: str, entry: str) -> FeedbackRecord | TurnName | None:
        """What an entry tells of; None for one too many, which goes when it is old."""
        name = _name(entry)
        content = await self._store.get(_key(tenant, name))
        if content is not None:
            record = _parsed(content, name)
            if record is None:
                return name
            if _entry(record) == entry:
                return record
        if now() - (_EPOCH + timedelta(milliseconds=int(entry[:13]))) > _STALE_AFTER:
            await self._store.discard(_entry_key(tenant, entry))
        return None

    async def _remove_below(self, tenant: str, folder: str) -> int:
        removed = 0
        while paths := await self._store.keys_after(folder, "", _ENTRIES_AT_ONCE):
            for path in paths:
                removed += await self._remove(tenant, f"{folder}/{path}")
        return removed

    async def _remove(self, tenant: str, key: str) -> int:
        """The record and then its entry; one that cannot be read leaves an entry, which the next export removes."""
        content = await self._store.get(key)
        if content is None:
            return 0
        await self._store.discard(key)
        record = _parsed(content, None)
        if record is not None:
            await self._store.discard(_entry_key(tenant, _entry(record)))
        return len(content)


def _parsed(content: bytes, name: TurnName | None) -> FeedbackRecord | None:
    """The record, if it can be read and is about that turn."""
    try:
        record = FeedbackRecord.model_validate_json(content)
    except ValidationError:
        return None
    return record if name in (None, record.name) else None


def _ms(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _entry(record: FeedbackRecord) -> str:
    name = record.name
    return f"{_ms(record.given_at):013d}-{name.slide_id}-{name.conversation_id}-{name.turn:06d}"


def _name(entry: str) -> TurnName:
    match = _ENTRY.fullmatch(entry)
    assert match is not None, "only entries are read"
    return TurnName(match[2], match[3], int(match[4]))


def _path(name: TurnName) -> str:
    return f"{name.conversation_id}/{name.turn:06d}.json"


def _key(tenant: str, name: TurnName) -> str:
    return f"{SlidePaths(tenant, name.slide_id).feedback}/{_path(name)}"


def _index(tenant: str) -> str:
    return f"index/feedback/{require_tenant_name(tenant)}"


def _split(entry: str) -> str:
    return f"{entry[:5]}/{entry[5:7]}/{entry[7:]}"


def _entry_key(tenant: str, entry: str) -> str:
    return f"{_index(tenant)}/{_split(entry)}"
