"""All of a tenant, gone: each slide as if it was deleted, uploads, indexes, and everything in Redis under its name.

What runs meanwhile goes on: take the tenant's keys and tokens away first.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from redis.asyncio import Redis

from server.flow.delete_slide import DeleteSlide
from server.slides.catalogue import SlideCatalogue
from server.storage.slide_store import SlideStore, require_tenant_name, slides_folder

_INDEXES = ("all", "pending", "failed", "feedback", "described")


@dataclass(frozen=True)
class EraseTenant:
    """Erases tenants."""

    store: SlideStore
    redis: Redis
    slides: SlideCatalogue
    deleting: DeleteSlide

    async def erase(self, tenant: str, note: Callable[[str], Awaitable[None]]) -> dict[str, int]:
        """How much there was of what, and of what was left. `note` is told of each slide that is gone."""
        folder = f"tenants/{require_tenant_name(tenant)}"
        erased = {"bytes": await self.store.stored_bytes(folder), "slides": 0}
        for slide_id in await self.store.folders(slides_folder(tenant)):
            found = await self.slides.look(tenant, slide_id)
            if found is not None:
                await self.deleting.delete(found)
            await note(slide_id)
            erased["slides"] += 1
        erased["other_objects"] = await self.store.delete_folder(folder)
        for index in _INDEXES:
            erased["other_objects"] += await self.store.delete_folder(f"index/{index}/{tenant}")
        await self.store.discard(f"index/state/{tenant}.json")
        erased["redis_keys"] = await self._erase_in_redis(tenant)
        erased["left"] = len(await self.store.keys_after(folder, "", 1000))
        return erased

    async def _erase_in_redis(self, tenant: str) -> int:
        """Every key names its tenant in braces."""
        return sum([await self.redis.delete(key) async for key in self.redis.scan_iter(f"eyepiece:*{{{tenant}}}*")])
