"""A job that makes something of a slide's stored features: from the queue's message to what is published.

It knows no model: what makes it is handed in. Only stored features are read. What a killed attempt had got so far and
had not published is a matter of seconds and is done again.
"""

import asyncio
import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Generic, TypeVar

import structlog
from prometheus_client import Counter
from redis.exceptions import RedisError
from saq import Job

from encoders.caller import Caller
from encoders.errors import DeviceLost, EncoderOverflowed, RegionError, StoredFileDamaged
from model_store.errors import EyepieceError
from server.embeddings.cache import EmbeddingCache
from server.encoding.derived_jobs import DerivedKind
from server.encoding.encode_job import EncodeInterrupted, heartbeat
from server.encoding.jobs import TRACE
from server.settings import Settings
from server.slides.catalogue import SlideCatalogue
from server.slides.derived_record import DerivedRecord, DerivedShelf
from server.slides.slide_record import SlideError as Failure
from server.slides.slide_record import SlideRecord
from server.slides.usage import Usage
from server.storage.slide_store import SlideStore
from server.telemetry.metrics import WorkerMetrics
from server.telemetry.tracing import span
from server.to_the_end import stop_beating

log = structlog.get_logger(__name__)
StoredFile = Path | BinaryIO
Record = TypeVar("Record", bound=DerivedRecord)
Make = TypeVar("Make", bound=Callable[..., Any])
_Result = TypeVar("_Result")
_IN_WORDS: dict[DerivedKind, str] = {"region": "a region", "evidence": "evidence"}
# The same features give the same again.
_FINAL = (RegionError, StoredFileDamaged, EncoderOverflowed)


@dataclass(frozen=True)
class DerivedJob(ABC, Generic[Record, Make]):
    """The parts that one kind needs; `run` is the function that SAQ calls. `makes` has what makes it for each model
    that this worker serves, the default's under ""."""

    settings: Settings
    store: SlideStore
    slides: SlideCatalogue
    records: DerivedShelf[Record]
    embeddings: EmbeddingCache
    usage: Usage
    metrics: WorkerMetrics
    makes: Mapping[str, Make]
    on_device_lost: Callable[[], None]

    kind: ClassVar[DerivedKind]

    @abstractmethod
    async def is_made(self, slide: SlideRecord, record: Record) -> bool:
        """Whether all of it is published."""

    @abstractmethod
    async def make(self, slide: SlideRecord, record: Record, features: StoredFile) -> str:
        """Makes and publishes it; the outcome as a word."""

    @property
    @abstractmethod
    def counter(self) -> Counter:
        """Counts outcomes by model."""

    async def run(
        self,
        context: dict[str, Any],
        *,
        tenant: str,
        slide_id: str,
        encoder_id: str,
        generation: str,
        name: str,
        model: str = "",
    ) -> str:
        """Make one; the outcome as a word.

        Raises:
            EyepieceError: something that may pass; SAQ tries again.
        """
        job: Job = context["job"]
        slide = await self.slides.find(tenant, slide_id, model)
        if slide is None or slide.generation != generation:
            return self._ended(job, model, "deleted")
        if slide.encoder_id != encoder_id or slide.model not in self.makes:
            return self._ended(job, model, "other_model")
        record = await self.records.find(slide.paths, name)
        if record is None:
            return self._ended(job, model, "dropped")
        try:
            with span(f"make {self.kind}", job.meta.get(TRACE)):
                return self._ended(job, model, await self._make(job, slide, record))
        except _FINAL as error:
            await self._fail(slide, record, error)
            return self._ended(None, model, "failed")
        except DeviceLost as error:
            log.error("device_lost", slide=slide.id[:12], exc_info=error)
            self._ended(None, model, "device_lost")
            self.on_device_lost()
            raise EncodeInterrupted("The worker's device has failed.") from None
        except Exception as error:  # noqa: BLE001 - whatever it is, it spends one of the attempts that errors get
            return await self._try_again(job, slide, record, error)

    async def _make(self, job: Job, slide: SlideRecord, record: Record) -> str:
        if await self.is_made(slide, record):
            return "known"
        beating = asyncio.create_task(heartbeat(job, self.settings.job_heartbeat_s / 3))
        try:
            async with self.store.opened(slide.paths.features(record.encoder_id)) as features:
                return await self.make(slide, record, features)
        except FileNotFoundError as error:
            if await self.slides.find(slide.tenant, slide.id) is None:
                return "deleted"
            raise StoredFileDamaged(
                "The slide's stored features are missing; delete the slide and upload it again."
            ) from error
        finally:
            await stop_beating(beating)

    async def in_thread(self, work: Callable[[Caller], _Result]) -> _Result:
        """Beside the event loop, so that the heartbeat goes on; cancelling stops it within the slide stage."""
        cancelled = threading.Event()
        running = asyncio.create_task(asyncio.to_thread(work, Caller(cancelled=cancelled)))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            cancelled.set()
            await asyncio.gather(running, return_exceptions=True)
            raise

    async def count_stored(self, slide: SlideRecord, size_bytes: int) -> None:
        """Counts what was published."""
        with contextlib.suppress(RedisError):  # counted anew within a day
            await self.usage.count_stored(slide.tenant, size_bytes)

    async def is_gone(self, slide: SlideRecord) -> bool:
        """Whether the slide was deleted; what was published of it meanwhile is removed: nobody else would."""
        if await self.slides.find(slide.tenant, slide.id) is not None:
            return False
        if await self.slides.remove_orphan(slide.tenant, slide.id):
            await self.embeddings.forget(slide.tenant, slide.id)
        return True

    async def _fail(self, slide: SlideRecord, record: Record, error: EyepieceError) -> None:
        """Unless it was dropped meanwhile."""
        async with self.slides.lock(slide.tenant, slide.id):
            await self.records.change(slide.paths, record.id, error=Failure(code=error.code, detail=error.detail))

    async def _try_again(self, job: Job, slide: SlideRecord, record: Record, error: Exception) -> str:
        errors = int(job.meta.get("errors", 0)) + 1
        job.meta["errors"] = errors
        log.warning(f"{self.kind}_error", slide=slide.id[:12], attempt=errors, exc_info=error)
        if errors < self.settings.job_error_attempts:
            self._ended(None, slide.model, "retried")
            raise EncodeInterrupted(
                f"Making {_IN_WORDS[self.kind]} was interrupted by {type(error).__name__}."
            ) from None
        gave_up = EyepieceError(f"Making {_IN_WORDS[self.kind]} failed repeatedly; the operator's log says why.")
        await self._fail(slide, record, error if isinstance(error, EyepieceError) else gave_up)
        return self._ended(None, slide.model, "gave_up")

    def _ended(self, job: Job | None, model: str, outcome: str) -> str:
        """With `job`, nothing is kept of it: whoever asks again looks at what was published."""
        if job is not None:
            job.ttl = -1
        self.counter.labels(model or self.settings.default_model, outcome).inc()
        return outcome
