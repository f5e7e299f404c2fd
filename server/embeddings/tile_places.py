"""Where the tiles of slides lie, kept in memory while regions are drawn on them."""

import asyncio
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from encoders.errors import RegionsUnavailable, StoredFileDamaged
from encoders.regions.outline import Outline
from encoders.regions.stored_tiles import read_tile_places
from encoders.regions.tile_places import TilePlaces
from server.admission.turns import TenantTurns
from server.slides.slide_record import SlideRecord
from server.storage.slide_store import SlideStore

# 16 bytes a tile: hundreds of slides, or four of the largest.
_MEMORY_BYTES = 32 * 2**20
# A thousand corners over the largest slide take a core for seconds; what people draw takes milliseconds.
_AT_ONCE, _PER_TENANT, _MOST_WAITING = 2, 1, 64


class TilePlacesCache:
    """Reads them from a slide's features; those used last stay in this process."""

    def __init__(self, store: SlideStore, memory_bytes: int = _MEMORY_BYTES) -> None:
        self._store = store
        self._memory_bytes = memory_bytes
        self._kept: OrderedDict[tuple[str, ...], TilePlaces] = OrderedDict()
        self._turns = TenantTurns(_AT_ONCE, _PER_TENANT, _MOST_WAITING, "regions to be drawn")

    async def inside(self, record: SlideRecord, outline: Outline) -> tuple[TilePlaces, NDArray[np.int64]]:
        """Those of an encoded slide, and which of them lie in a region that can be asked about; tenants take turns.

        Raises:
            RegionsUnavailable: as `find`.
            UnusableRegion, RegionTooSmall: as `TilePlaces.require_inside`.
            Overloaded: too many of the tenant's wait.
        """
        async with self._turns.one(record.tenant):
            places = await self.find(record)
            return places, await asyncio.to_thread(places.require_inside, outline)

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
