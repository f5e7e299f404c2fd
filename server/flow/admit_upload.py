"""Refuses an upload before its first byte when it could not be kept or encoded."""

from dataclasses import dataclass

from server.encoding.jobs import EncodeJobs
from server.errors import StorageFull
from server.slides.usage import Usage
from server.storage.slide_store import SlideStore
from server.uploads.upload_files import UploadLimits


@dataclass(frozen=True)
class AdmitUpload:
    """Room in queue, quota and disk; sizes in bytes."""

    jobs: EncodeJobs
    usage: Usage
    store: SlideStore
    max_upload_bytes: int
    disk_reserve_bytes: int

    async def admit(self, tenant: str, announced_bytes: int) -> UploadLimits:
        """What the upload may take; `announced_bytes` is 0 when the client does not say.

        Raises:
            Overloaded, QuotaExceeded, QueueUnavailable.
            StorageFull: the disk has no room for what is announced.
        """
        await self.jobs.require_room(tenant)
        await self.usage.require_encoding(tenant)
        left = await self.usage.require_room(tenant, announced_bytes)
        self.require_disk(announced_bytes)
        return UploadLimits(self.max_upload_bytes, self.disk_reserve_bytes, left)

    def require_disk(self, size_bytes: int) -> None:
        """Raises StorageFull when the disk of a local store has no room for so many bytes more."""
        free_bytes = self.store.free_bytes()
        if free_bytes is not None and free_bytes - size_bytes < self.disk_reserve_bytes:
            raise StorageFull("The disk has no room for this upload; delete slides or add space, then upload again.")
