"""Where unfinished uploads are kept: in the slide store, so that every replica of the API finds them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import structlog
from pydantic import ValidationError

from server.errors import NotFound
from server.storage.growing_objects import GrowingObject
from server.storage.slide_store import SlideStore, uploads_folder
from server.uploads.resumable.upload_record import UPLOAD_ID_PATTERN, MakingPaths, Outcome, UploadRecord

log = structlog.get_logger(__name__)
_READ_AT_ONCE = 32


class UploadShelf:
    """Records, outcomes and bytes. Nobody else writes them; who changes an upload holds its lock."""

    def __init__(self, store: SlideStore) -> None:
        self.store = store

    async def create(self, upload: UploadRecord) -> None:
        """Begin an upload, or write what has changed of it."""
        await self.store.put(upload.paths.record(upload.id), upload.model_dump_json().encode())

    keep = create

    async def require(self, tenant: str, upload_id: str) -> UploadRecord:
        """The upload.

        Raises:
            NotFound: there is none, for this tenant.
        """
        upload = await self._find(tenant, upload_id) if UPLOAD_ID_PATTERN.fullmatch(upload_id) else None
        if upload is None:
            raise NotFound("There is no upload with this id, or it has expired; create one with POST /v1/uploads.")
        return upload

    async def find(self, tenant: str, upload_id: str) -> UploadRecord | None:
        """The upload; None when there is none, or its record cannot be read."""
        return await self._find(tenant, upload_id)

    async def of_making(self, tenant: str, making: str) -> list[UploadRecord]:
        """All uploads of a slide in the making, in the order of their creation."""
        halves = await self.store.folders(MakingPaths(tenant, making).folder)
        found: list[UploadRecord | None] = []
        for start in range(0, len(halves), _READ_AT_ONCE):
            some = halves[start : start + _READ_AT_ONCE]
            found += await asyncio.gather(*(self._find(tenant, making + half) for half in some))
        return sorted((it for it in found if it is not None), key=lambda it: (it.created_at, it.id))

    async def makings(self, tenant: str) -> list[str]:
        """Every slide in the making of a tenant."""
        return await self.store.folders(uploads_folder(tenant))

    async def outcome(self, tenant: str, making: str) -> Outcome | None:
        """What became of a slide in the making; None before that."""
        content = await self.store.get(MakingPaths(tenant, making).outcome)
        return None if content is None else Outcome.model_validate_json(content)

    async def end(self, tenant: str, making: str, outcome: Outcome) -> None:
        """Note the outcome; the bytes go, for they are a slide's now, or nobody's."""
        await self.store.put(MakingPaths(tenant, making).outcome, outcome.model_dump_json().encode())
        for upload in await self.of_making(tenant, making):
            await asyncio.to_thread(self.data(upload).remove)

    async def remove(self, upload: UploadRecord) -> None:
        """Its bytes, then what is known of it."""
        await asyncio.to_thread(self.data(upload).remove)
        await self.store.discard(upload.paths.record(upload.id))

    async def remove_making(self, tenant: str, making: str) -> None:
        """All of a slide in the making."""
        await self.store.delete_folder(MakingPaths(tenant, making).folder)

    def data(self, upload: UploadRecord) -> GrowingObject:
        """Its bytes."""
        return self.store.growing(upload.paths.data(upload.id))

    async def offset_bytes(self, upload: UploadRecord) -> int:
        """How many bytes have come; without those of which nobody knows whether they are right."""
        if upload.is_complete:
            return upload.length_bytes
        size_bytes = await asyncio.to_thread(self.data(upload).size_bytes)
        return size_bytes if upload.verified_bytes is None else min(size_bytes, upload.verified_bytes)

    async def reserved_bytes(self, tenant: str) -> int:
        """What all uploads that have no outcome may become together."""
        return sum([upload.length_bytes async for upload in self._unfinished(tenant)])

    async def _unfinished(self, tenant: str) -> AsyncIterator[UploadRecord]:
        for making in await self.makings(tenant):
            if await self.outcome(tenant, making) is None:
                for upload in await self.of_making(tenant, making):
                    yield upload

    async def _find(self, tenant: str, upload_id: str) -> UploadRecord | None:
        paths = MakingPaths(tenant, upload_id[:32])
        content = await self.store.get(paths.record(upload_id))
        if content is None:
            return None
        with suppress(ValidationError):
            return UploadRecord.model_validate_json(content)
        log.warning("upload_record_unreadable", upload=upload_id[-12:])
        return None
