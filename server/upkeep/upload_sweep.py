"""Uploads that nobody goes on with are removed, and those that are whole and have no slide yet get one."""

import structlog
from redis.asyncio import Redis

from model_store.errors import EyepieceError
from server.flow.receive_upload import ReceiveUpload
from server.slides.catalogue import SlideCatalogue
from server.storage.slide_store import TENANT_PATTERN
from server.upkeep.rounds import go_round

log = structlog.get_logger(__name__)
_LOCK_KEY = "eyepiece:upload-sweep"
_EVERY_S = 300


class UploadSweep:
    """One of the API replicas sweeps; the others see that it was done."""

    def __init__(self, redis: Redis, slides: SlideCatalogue, uploads: ReceiveUpload) -> None:
        self._redis = redis
        self._slides = slides
        self._uploads = uploads

    async def run(self) -> None:
        """Sweep after sweep until cancelled; a dependency that is away costs one."""
        await go_round(self._sweep_once, _EVERY_S, "upload_sweep_failed")

    async def _sweep_once(self) -> None:
        if await self._redis.set(_LOCK_KEY, "1", nx=True, ex=_EVERY_S - 1):
            await self.sweep()

    async def sweep(self) -> None:
        """Every tenant; what goes wrong for one is none of the others' business."""
        for tenant in await self._slides.tenants():
            if TENANT_PATTERN.fullmatch(tenant):  # else a folder that is none of ours
                try:
                    await self._uploads.sweep(tenant)
                except EyepieceError as error:
                    log.warning("upload_sweep_failed", code=error.code)
