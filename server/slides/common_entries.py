"""Slides of which several things are said: entries that are in several lists of the index at once.

Each list is in the order of upload, newest first, so all are gone through side by side: whichever is behind jumps to
where the others are, and what lies between is never listed. No record is read for it.
"""

from bisect import bisect_right
from collections.abc import Sequence

from server.slides.metadata_index import MetadataIndex, Said

# Names that a list is asked for at once, at first and at most: a bucket gives a thousand a request.
_AT_ONCE = 100
_MOST_AT_ONCE = 1_000
_HASH_BEGIN = 14  # behind the digits and the dash of an entry
_FIRST_HASH = "0" * 64
_LAST_HASH = "f" * 64


class CommonEntries:
    """Of one search, behind a place in the order. `position` is where to go on; `compared` counts names; `is_over` is
    True when nothing can follow."""

    def __init__(self, index: MetadataIndex, tenant: str, said: Sequence[Said], after: str) -> None:
        self._lists = [_List(index, tenant, it) for it in said]
        self.position = after
        self.is_over = False

    @property
    def compared(self) -> int:
        """How many names were listed."""
        return sum(it.listed for it in self._lists)

    async def take(self, most: int, most_compared: int) -> list[str]:
        """Up to `most` entries that are in all lists; fewer at the end, or when so many names were listed."""
        taken: list[str] = []
        at_once = most if len(self._lists) == 1 else max(most, _AT_ONCE)
        while len(taken) < most and not self.is_over and self.compared < most_compared:
            entry = await self._next(at_once)
            if entry is not None:
                taken.append(entry)
            elif len(self._lists) > 1:
                at_once = min(2 * at_once, _MOST_AT_ONCE)
        return taken

    async def _next(self, at_once: int) -> str | None:
        """The next entry, if all lists have it; else `position` is just before the next that can be one."""
        first, *others = self._lists
        entry = await first.behind(self.position, at_once)
        for other in others:
            if entry is None:
                break
            there = await other.behind(_before(entry), at_once)
            if there != entry:
                self.is_over = there is None
                self.position = entry if there is None else _before(there)
                return None
        if entry is None:
            self.is_over = True
            return None
        self.position = entry
        return entry


class _List:
    """The entries of slides of which one thing is said, as far as they were listed."""

    def __init__(self, index: MetadataIndex, tenant: str, said: Said) -> None:
        self._index, self._tenant, self._said = index, tenant, said
        self._entries: list[str] = []
        self._is_whole = False
        self.listed = 0

    async def behind(self, place: str, at_once: int) -> str | None:
        """The first entry behind a place; None for none. Places only go on."""
        del self._entries[: bisect_right(self._entries, place)]
        if not self._entries and not self._is_whole:
            self._entries = await self._index.entries(self._tenant, self._said, place, at_once)
            self._is_whole = len(self._entries) < at_once
            self.listed += len(self._entries)
        return self._entries[0] if self._entries else None


def _before(entry: str) -> str:
    """The place just before an entry: behind it, the entry is the first."""
    digits, hashed = entry[: _HASH_BEGIN - 1], entry[_HASH_BEGIN:]
    if hashed != _FIRST_HASH:
        return f"{digits}-{int(hashed, 16) - 1:064x}"
    return f"{max(int(digits) - 1, 0):013d}-{_LAST_HASH}"
