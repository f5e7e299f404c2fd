"""Where the tiles of slides lie, kept in memory while regions are drawn on them."""

import asyncio
from collections import OrderedDict

from encoders.errors import RegionsUnavailable, StoredFileDamaged
from encoders.regions.stored_tiles import read_tile_places
from encoders.regions.tile_places import TilePlaces
from server.slides.slide_record import SlideRecord
from server.storage.slide_store import SlideStore

# 16 bytes a tile: hundreds of slides, or four of the largest.
_MEMORY_BYTES = 32 * 2**20


class TilePlacesCache:
    """Reads them from a slide's features; those used last stay in this process."""

    def __init__(self, store: SlideStore, memory_bytes: int = _MEMORY_BYTES) -> None:
        self._store = store
        self._memory_bytes = memory_bytes
        self._kept: OrderedDict[tuple[str, ...], TilePlaces] = OrderedDict()

    async def find(self, record: SlideRecord) -> TilePlaces:
        """Those of an encoded slide, as the model sees it.

        Raises:
            RegionsUnavailable: there are no tiles whose places are known.
        """
        key = (record.tenant, record.id, record.generation, record.encoder_id)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        try:
            async with self._store.opened(record.paths.features(record.encoder_id)) as features:
                places = await asyncio.to_thread(read_tile_places, features)
        except FileNotFoundError as error:
            raise RegionsUnavailable(
                "This slide was given as slide features, which have no places; ask about the whole slide."
            ) from error
        except StoredFileDamaged as error:
            raise RegionsUnavailable(error.detail) from error
        self._kept[key] = places
        while len(self._kept) > 1 and sum(it.coords.nbytes for it in self._kept.values()) > self._memory_bytes:
            self._kept.popitem(last=False)
        return places
