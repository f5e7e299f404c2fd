"""A page of a tenant's slides: newest first, of one status or name, at the cost of the page and not of the archive."""

import asyncio
import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from redis.exceptions import LockError

from model_store.errors import EyepieceError
from server.errors import InvalidRequest
from server.flow.slide_states import SlideStates
from server.slides.catalogue import SlideCatalogue
from server.slides.common_entries import CommonEntries
from server.slides.metadata_index import Said, says
from server.slides.public_slide import Slide, Status
from server.slides.slide_index import ENTRY_PATTERN, Shelf, entry_of, folded, slide_id_of
from server.slides.slide_record import SlideRecord, UnreadableRecord
from server.storage.slide_store import SlideStore, slides_folder
from server.uploads.slide_metadata import SlideMetadata

# So many names are compared at once, and so many for a page at the most; so many slides are looked at for one.
_NAMES_AT_ONCE = 500
_MOST_NAMES = 2_000
_MOST_LOOKS = 200
# Names of the index that are compared for a page of several fields: a hundred requests to a bucket. Only where so many
# fit nowhere can a page come empty before the end.
_MOST_COMPARED = 100_000
PREFIX_PATTERN = re.compile(r"[0-9a-f]{6,64}")
_SHELVES: dict[Status | None, Shelf] = {"queued": "pending", "encoding": "pending", "failed": "failed"}


@dataclass(frozen=True)
class ListedSlides:
    """Some slides, newest first; `next_cursor` is None at the end. `complete` is False while slides may be missing
    from it: those of an older release, or those that another model has encoded, are still gone through."""

    slides: list[Slide]
    next_cursor: str | None
    complete: bool


@dataclass
class _Looks:
    """What may still be done for a page."""

    names: int = _MOST_NAMES
    slides: int = _MOST_LOOKS


@dataclass(frozen=True)
class ListSlides:
    """Lists slides of all tenants. A page that has looked at enough ends before its `limit`, and can be continued."""

    slides: SlideCatalogue
    states: SlideStates
    store: SlideStore

    async def page(
        self, tenant: str, *, cursor: str, limit: int, status: Status | None = None, name: str = ""
    ) -> ListedSlides:
        """Up to `limit` slides behind `cursor`; `name` is any part of a file name, in upper or lower case.

        Raises:
            InvalidRequest: the cursor is none.
        """
        _require_cursor(cursor)
        shelf = _SHELVES.get(status, "all")
        complete = await self.slides.shelf_is_whole(tenant, shelf)
        found: list[Slide] = []
        left, position = _Looks(), cursor
        while len(found) < limit and left.names > 0 and left.slides > 0:
            room = min(limit - len(found), left.slides)
            asked = min(_NAMES_AT_ONCE, left.names) if name else room
            entries = await self.slides.index.entries(shelf, tenant, position, asked)
            wanted, looked_until = await self._named(tenant, entries, folded(name), left) if name else (entries, None)
            taken = wanted[:room]
            left.names -= len(entries)
            left.slides -= len(taken)
            shown = await asyncio.gather(*(self._show(tenant, entry) for entry in taken))
            found += [slide for slide in shown if slide is not None and status in (None, slide.status)]
            is_cut = len(wanted) > room or looked_until is not None
            if len(entries) < asked and not is_cut:
                return ListedSlides(found, None, complete)
            position = taken[-1] if len(wanted) > room else looked_until or entries[-1]
        return ListedSlides(found, position, complete)

    async def described(
        self, tenant: str, wanted: SlideMetadata, *, cursor: str = "", limit: int, status: Status | None = None
    ) -> ListedSlides:
        """Up to `limit` slides behind `cursor` of which all of `wanted` is said. A page of one field costs the page; of
        several the names in the index are compared first, and a page is empty at the end alone, unless
        `_MOST_COMPARED` names fit nowhere.

        Raises:
            InvalidRequest: the cursor is none.
        """
        _require_cursor(cursor)
        said = tuple(wanted.values)
        common = CommonEntries(self.slides.described, tenant, said, cursor)
        found: list[Slide] = []
        left = _MOST_LOOKS
        while len(found) < limit and left > 0 and not common.is_over and common.compared < _MOST_COMPARED:
            entries = await common.take(min(limit - len(found), left), _MOST_COMPARED)
            left -= len(entries)
            shown = await asyncio.gather(*(self._show_described(tenant, entry, said) for entry in entries))
            found += [slide for slide in shown if slide is not None and status in (None, slide.status)]
        return ListedSlides(found, None if common.is_over else common.position, complete=True)

    async def _show_described(self, tenant: str, entry: str, said: Sequence[Said]) -> Slide | None:
        """The slide of an entry that is found by all of this, if it is still said of it. One whose record cannot be
        read is shown: nobody knows that it is not meant."""
        record = await self.slides.look(tenant, slide_id_of(entry))
        if isinstance(record, UnreadableRecord):
            return await self.states.show(record)
        is_it = record is not None and entry_of(record) == entry
        too_many = [it for it in said if record is None or not is_it or not says(record, it)]
        for it in too_many:
            with contextlib.suppress(EyepieceError, LockError):  # it is one too many for whoever looks next
                await self.slides.forget_entry(tenant, entry, it)
        return None if record is None or too_many else await self.states.show(record)

    async def beginning(self, tenant: str, prefix: str, limit: int) -> ListedSlides:
        """The slides whose id begins with `prefix`, by their ids; all there are, whatever the index knows.

        Raises:
            InvalidRequest: `prefix` is no beginning of an id, or more than `limit` ids begin so.
        """
        if not PREFIX_PATTERN.fullmatch(prefix):
            raise InvalidRequest("The beginning of a slide's id is 6 to 64 lower-case hex digits.")
        folder, position = slides_folder(tenant), prefix
        found: list[Slide] = []
        while keys := await self.store.keys_after(folder, position, 1):
            slide_id = keys[0].split("/")[0]
            if not slide_id.startswith(prefix):
                break
            record = await self.slides.look(tenant, slide_id)
            if record is not None and len(found) == limit:
                raise InvalidRequest(f"More than {limit} slides have an id that begins so; give more of it.")
            if record is not None:
                found.append(await self.states.show(record))
            position = f"{slide_id}0"  # behind all of its folder, for a slash comes before a digit
        return ListedSlides(found, None, complete=True)

    async def _named(
        self, tenant: str, entries: Sequence[str], part: str, left: _Looks
    ) -> tuple[list[str], str | None]:
        """The entries whose file name has this part; and the last one that was compared, None for all. Names that
        Redis has not are read, as many as may be."""
        names = await self.slides.names.known(tenant, entries)
        unknown = [entry for entry in entries if entry not in names]
        read = unknown[: left.slides]
        records = await asyncio.gather(*(self.slides.look(tenant, slide_id_of(entry)) for entry in read))
        left.slides -= len(read)
        names |= {entry: folded(it.filename) for entry, it in zip(read, records, strict=True) if it is not None}
        await self.slides.names.remember(
            tenant,
            {entry: it.filename for entry, it in zip(read, records, strict=True) if isinstance(it, SlideRecord)},
        )
        compared = entries if len(read) == len(unknown) else entries[: entries.index(unknown[len(read)])]
        until = None if len(compared) == len(entries) else compared[-1]
        return [entry for entry in compared if part in names.get(entry, "")], until

    async def _show(self, tenant: str, entry: str) -> Slide | None:
        """The slide of an entry; None for an entry that fits no slide (any more), which the reconciler is told of."""
        record = await self.slides.look(tenant, slide_id_of(entry))
        if record is None or not _fits(record, entry):
            await self._note("pending", tenant, entry)
            return None
        if isinstance(record, UnreadableRecord):
            await self._note("failed", tenant, entry)
        return await self.states.show(record)

    async def _note(self, shelf: Shelf, tenant: str, entry: str) -> None:
        with contextlib.suppress(EyepieceError):  # a store that is full can still be looked at
            await self.slides.index.add_entry(shelf, tenant, entry)


def _require_cursor(cursor: str) -> None:
    if cursor and not ENTRY_PATTERN.fullmatch(cursor):
        raise InvalidRequest("This cursor is none of this server's; list again without one.")


def _fits(record: SlideRecord | UnreadableRecord, entry: str) -> bool:
    """A slide whose record cannot be read may not know any more when it was uploaded."""
    return isinstance(record, UnreadableRecord) or entry_of(record) == entry
