"""Uploads that nobody goes on with are removed, and those that are whole and have no slide yet get one."""

import asyncio

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from model_store.errors import EyepieceError
from server.flow.receive_upload import ReceiveUpload
from server.slides.catalogue import SlideCatalogue
from server.storage.slide_store import TENANT_PATTERN

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
        while True:
            try:
                if await self._redis.set(_LOCK_KEY, "1", nx=True, ex=_EVERY_S - 1):
                    await self.sweep()
            except RedisError as error:
                log.warning("upload_sweep_failed", error=type(error).__name__)
            except Exception as error:  # a loop that ends would keep abandoned uploads for ever
                log.error("upload_sweep_failed", exc_info=error)
            await asyncio.sleep(_EVERY_S)

    async def sweep(self) -> None:
        """Every tenant; what goes wrong for one is none of the others' business."""
        for tenant in await self._slides.tenants():
            if TENANT_PATTERN.fullmatch(tenant):  # else a folder that is none of ours
                try:
                    await self._uploads.sweep(tenant)
                except EyepieceError as error:
                    log.warning("upload_sweep_failed", code=error.code)
