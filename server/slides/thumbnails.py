"""Thumbnails of stored slides: made once, kept in memory for a while, and never in the way of an upload."""

import asyncio
from collections import OrderedDict
from weakref import WeakValueDictionary

from encoders.tiling.isolation.reader_protocol import PictureForm
from server.admission.turns import TenantTurns
from server.slides.open_slides import OpenSlides
from server.slides.slide_record import SlideRecord

# Some hundred pictures of 512 px, more than one page of a viewer shows.
_MEMORY_BYTES = 64 * 2**20
# Beside the looks at uploads, which have turns of their own.
_AT_ONCE = 2
_PER_TENANT = 1
# A browser's page of slides; it asks again for the others.
_MOST_WAITING = 32

_Key = tuple[str, str, int, PictureForm]


class Thumbnails:
    """Pictures by tenant, slide, size and form; those used last stay, at most `memory_bytes` of them."""

    def __init__(self, slides: OpenSlides, memory_bytes: int = _MEMORY_BYTES) -> None:
        self._slides = slides
        self._memory_bytes = memory_bytes
        self._turns = TenantTurns(_AT_ONCE, _PER_TENANT, _MOST_WAITING, "thumbnails")
        self._kept: OrderedDict[_Key, bytes] = OrderedDict()
        self._kept_bytes = 0
        # Each for as long as somebody waits for that picture.
        self._making: WeakValueDictionary[_Key, asyncio.Lock] = WeakValueDictionary()

    async def picture(self, record: SlideRecord, max_px: int, form: PictureForm) -> bytes:
        """The tissue, at most `max_px` wide and high; never the label or the macro image.

        Raises:
            Overloaded: too many thumbnails of the tenant wait.
            NotFound: the slide was deleted.
            SlideReaderLost: its reader crashed or overran its deadline.
            SlideError: it cannot be read.
        """
        key: _Key = (record.tenant, record.id, max_px, form)
        if (known := self._find(key)) is not None:
            return known
        async with self._making.setdefault(key, asyncio.Lock()):
            if (known := self._find(key)) is not None:  # made for another request while this one waited
                return known
            if self._slides.is_open(record):  # some milliseconds: not worth a turn
                picture = await self._slides.thumbnail(record, max_px, form)
            else:
                async with self._turns.one(record.tenant):
                    picture = await self._slides.thumbnail(record, max_px, form)
            self._keep(key, picture)
        return picture

    def forget(self, tenant: str, slide_id: str) -> None:
        """Drop what is kept of a slide."""
        for key in [key for key in self._kept if key[:2] == (tenant, slide_id)]:
            self._drop(key)

    def _find(self, key: _Key) -> bytes | None:
        picture = self._kept.get(key)
        if picture is not None:
            self._kept.move_to_end(key)
        return picture

    def _keep(self, key: _Key, picture: bytes) -> None:
        self._drop(key)
        self._kept[key] = picture
        self._kept_bytes += len(picture)
        while self._kept_bytes > self._memory_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: _Key) -> None:
        self._kept_bytes -= len(self._kept.pop(key, b""))
