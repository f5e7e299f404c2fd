"""A slide comes as DICOM instances: receive → keep each with its series → when the series is quiet and nothing is known
to be missing, the slide, by the way that all uploads of several files take (`server.flow.receive_upload`)."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import IntEnum

import structlog

from encoders.errors import SlideError
from model_store.errors import EyepieceError
from server.errors import NotFound, UploadIncomplete
from server.flow.prepare_slide import PreparedSlide
from server.flow.receive_upload import ReceiveUpload
from server.slides.series_index import SeriesIndex
from server.uploads.dicom.dicom_instance import UID_PATTERN, DicomInstance, read_instance
from server.uploads.dicom.missing_parts import missing_parts
from server.uploads.dicom.series_clock import SeriesClock
from server.uploads.dicom.stored_instances import receive_instances
from server.uploads.one_slide import SourceFile
from server.uploads.resumable.upload_record import (
    Outcome,
    UploadRecord,
    instance_upload,
    instance_upload_id,
    making_of,
    series_slide,
)
from server.uploads.slide_source import source_digests

log = structlog.get_logger(__name__)
# A slide of the series may be in the making, which takes a look inside.
_PATIENCE_S = 30.0
_AGAIN_S = 60.0


class StowReason(IntEnum):
    """Why an instance is not kept, in the numbers of DICOM PS3.18, I.2.2; WARNING is one of PS3.4, B.2.3."""

    PROCESSING_FAILURE = 0x0110
    DUPLICATE = 0x0111
    CLASS_NOT_SUPPORTED = 0x0122
    OUT_OF_RESOURCES = 0xA700
    DOES_NOT_MATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000
    ELEMENTS_DISCARDED = 0xB006

    @property
    def is_warning(self) -> bool:
        """Whether the instance was taken nevertheless."""
        return self is StowReason.ELEMENTS_DISCARDED


@dataclass(frozen=True)
class TakenInstance:
    """What became of one instance of a request; `instance` is None when nobody can say which it is, `reason` None when
    it is kept."""

    instance: DicomInstance | None
    reason: StowReason | None = None
    # What reason says in a number, where an error of ours is behind it.
    error: EyepieceError | None = None


@dataclass(frozen=True)
class WaitingSeries:
    """A series that is no slide yet. `due_in_s` is None while something is missing, or was refused."""

    study: str
    series: str
    uploads: tuple[UploadRecord, ...]
    missing: tuple[str, ...]
    due_in_s: float | None
    outcome: Outcome | None


@dataclass(frozen=True)
class ReceiveSeries:
    """Receives instances, for all tenants. A series becomes a slide `quiet_s` after its last instance."""

    uploads: ReceiveUpload
    index: SeriesIndex
    clock: SeriesClock
    quiet_s: float

    async def receive(
        self,
        tenant: str,
        body: AsyncIterator[bytes],
        content_type: str,
        announced_bytes: int,
        study: str | None,
        series: str | None = None,
    ) -> list[TakenInstance]:
        """Keep the instances of a request, which all belong to `study` and `series` where they are said; in their
        order.

        Raises:
            WrongContentType, InvalidRequest, UploadTooLarge, QuotaExceeded, StorageFull, Overloaded: none is kept.
        """
        limits = await self.uploads.admission.admit(tenant, announced_bytes)
        folder = self.uploads.shelf.store.new_staging_path()
        files = await receive_instances(body, content_type, folder, limits, self.uploads.slides.metrics)
        try:
            return [await self._taken(tenant, file, study, series) for file in files]
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _taken(self, tenant: str, file: SourceFile, study: str | None, series: str | None) -> TakenInstance:
        instance = await asyncio.to_thread(read_instance, file.path)
        if instance is None:
            return TakenInstance(None, StowReason.CANNOT_UNDERSTAND)
        if study not in (None, instance.study) or series not in (None, instance.series):
            return TakenInstance(instance, StowReason.DOES_NOT_MATCH)
        if not instance.is_whole_slide_image:
            return TakenInstance(instance, StowReason.CLASS_NOT_SUPPORTED)
        if not instance.is_level:
            return TakenInstance(instance, StowReason.ELEMENTS_DISCARDED)
        try:
            return TakenInstance(instance, await self._keep(tenant, instance, file))
        except EyepieceError as error:
            log.warning("instance_not_kept", code=error.code)
            return TakenInstance(instance, StowReason.OUT_OF_RESOURCES, error)

    async def _keep(self, tenant: str, instance: DicomInstance, file: SourceFile) -> StowReason | None:
        """Put an instance to the others of its series; why not, if not."""
        making = making_of(series_slide(instance.series))
        async with self.uploads.locks.held(tenant, making, _PATIENCE_S, to_the_end=True):
            digests = await self._digests_of_slide(tenant, instance.series)
            if digests is not None:
                return None if file.sha256 in digests else StowReason.DUPLICATE
            shelf = self.uploads.shelf
            if await shelf.outcome(tenant, making) is not None:  # it was refused, or its slide is deleted: begin anew
                await shelf.remove_making(tenant, making)
            known = await shelf.find(tenant, instance_upload_id(instance.series, instance.sop_instance))
            if known is not None and known.is_complete and known.sha256 != file.sha256:
                return StowReason.DUPLICATE
            if known is None or not known.is_complete:
                await self._put(tenant, instance, file, is_new=known is None)
            await self.clock.set(tenant, making, self.quiet_s)
        return None

    async def _put(self, tenant: str, instance: DicomInstance, file: SourceFile, *, is_new: bool) -> None:
        """The record comes first and is whole last: what dies between is put again when the instance is sent again, or
        expires."""
        uploads = self.uploads
        upload = instance_upload(tenant, instance, file.size_bytes, uploads.lifetime_s)
        if is_new:
            await uploads.begin(upload)
        await asyncio.to_thread(uploads.shelf.data(upload).take, file.path)
        await uploads.shelf.keep(upload.renewed(uploads.lifetime_s, sha256=file.sha256))

    async def _digests_of_slide(self, tenant: str, series: str) -> frozenset[str] | None:
        """The SHA-256 of the files of the series' slide; None when there is no such slide."""
        slide_id = await self.index.slide_of(tenant, series)
        record = None if slide_id is None else await self.uploads.slides.slides.look(tenant, slide_id)
        return None if record is None else await source_digests(self.uploads.shelf.store, record.paths)

    async def require_slide(self, tenant: str, series: str) -> str:
        """The id of the slide that is this series.

        Raises:
            NotFound: there is none; the sentence says whether it waits, and for what.
        """
        if not UID_PATTERN.fullmatch(series):
            raise NotFound("`dicom:` needs a series UID behind it: digits and dots, at most 64 characters.")
        slide_id = await self.index.slide_of(tenant, series)
        if slide_id is not None:
            return slide_id
        waiting = await self._waiting(tenant, making_of(series_slide(series)))
        if waiting is None:
            raise NotFound("There is no slide of this series; send it to POST /v1/dicomweb/studies.")
        if waiting.outcome is not None and waiting.outcome.error is not None:
            raise NotFound(f"What came of this series is no slide: {waiting.outcome.error.detail}")
        if waiting.missing:
            raise NotFound(f"The series is not complete. {' '.join(waiting.missing)} Send the rest.")
        raise NotFound("The series has come and will be a slide when no more of it has come for a while; ask again.")

    async def waiting(self, tenant: str, most: int) -> list[WaitingSeries]:
        """Series that are no slides yet, at most so many."""
        found: list[WaitingSeries] = []
        for making in await self.uploads.shelf.makings(tenant):
            if len(found) < most and (waiting := await self._waiting(tenant, making)) is not None:
                found.append(waiting)
        return found

    async def _waiting(self, tenant: str, making: str) -> WaitingSeries | None:
        outcome = await self.uploads.shelf.outcome(tenant, making)
        if outcome is not None and outcome.slide_id is not None:
            return None
        uploads = tuple(it for it in await self.uploads.shelf.of_making(tenant, making) if it.instance is not None)
        instances = [it.instance for it in uploads if it.instance is not None]
        if not instances:
            return None
        missing = () if outcome is not None else tuple(missing_parts(instances))
        due_in_s = None if missing or outcome is not None else await self.clock.due_in_s(tenant, making)
        return WaitingSeries(instances[0].study, instances[0].series, uploads, missing, due_in_s, outcome)

    async def has(self, tenant: str, series: str, instance: str) -> int | None:
        """The size in bytes of an instance that waits for the others of its series; None when it has not come."""
        if await self.uploads.shelf.outcome(tenant, making_of(series_slide(series))) is not None:
            return None
        known = await self.uploads.shelf.find(tenant, instance_upload_id(series, instance))
        return known.length_bytes if known is not None and known.is_complete else None

    async def missing(self, tenant: str, series: str) -> tuple[str, ...]:
        """What is known to be missing of a series that waits, in sentences."""
        waiting = await self._waiting(tenant, making_of(series_slide(series)))
        return () if waiting is None else waiting.missing

    async def make(self, tenant: str, series: str) -> str:
        """The id of the slide of a series that has come whole, as whoever sent it knows.

        Raises:
            UploadIncomplete: something is missing.
            SlideError: what came is no slide.
        """
        slide_id = await self.index.slide_of(tenant, series)
        if slide_id is not None and await self._digests_of_slide(tenant, series) is not None:
            return slide_id
        return (await self.uploads.finish(tenant, series_slide(series), None)).slide.id

    async def make_due(self) -> int:
        """Make slides of the series that have been quiet for long enough; how many were looked at."""
        due = await self.clock.take_due()
        for tenant, making in due:
            await self._make(tenant, making)
        return len(due)

    async def _make(self, tenant: str, making: str) -> PreparedSlide | None:
        """The slide of a series, unless something is missing; what fails for another reason is tried again."""
        waiting = await self._waiting(tenant, making)
        if waiting is None or waiting.missing or waiting.outcome is not None:
            return None
        try:
            prepared = await self.uploads.finish(tenant, series_slide(waiting.series), None)
        except (SlideError, UploadIncomplete) as error:
            log.warning("series_is_no_slide", upload=making[:12], code=error.code)
        except EyepieceError as error:
            log.warning("series_waits", upload=making[:12], code=error.code)
            await self.clock.set(tenant, making, _AGAIN_S)
        else:
            log.info("series_is_slide", upload=making[:12], slide=prepared.slide.id[:12])
            return prepared
        return None

    async def find_quiet(self, tenant: str) -> None:
        """Give moments to series that wait and have none: Redis was lost, or a process died."""
        for waiting in await self.waiting(tenant, most=10_000):
            if waiting.outcome is None and not waiting.missing and waiting.due_in_s is None:
                await self.clock.set(tenant, making_of(series_slide(waiting.series)), self.quiet_s)
