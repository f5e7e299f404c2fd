"""Refuses an upload before its first byte when it could not be kept or encoded."""

from dataclasses import dataclass

from server.encoding.jobs import EncodeJobs
from server.slides.usage import Usage
from server.uploads.upload_files import UploadLimits


@dataclass(frozen=True)
class AdmitUpload:
    """Room in queue, quota and disk; sizes in bytes."""

    jobs: EncodeJobs
    usage: Usage
    max_upload_bytes: int
    disk_reserve_bytes: int

    async def admit(self, tenant: str, announced_bytes: int) -> UploadLimits:
        """What the upload may take; `announced_bytes` is 0 when the client does not say.

        Raises:
            Overloaded, QuotaExceeded, QueueUnavailable.
        """
        await self.jobs.require_room(tenant)
        await self.usage.require_encoding(tenant)
        left = await self.usage.require_room(tenant, announced_bytes)
        return UploadLimits(self.max_upload_bytes, self.disk_reserve_bytes, left)
