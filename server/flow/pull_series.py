"""A series is pulled: from an archive that the operator has named → instance by instance, as if it had been pushed
(`server.flow.receive_series`) → the slide. Outside of any request: who dies on the way is followed by another replica,
which fetches what has not come."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import structlog
from redis.exceptions import RedisError

from encoders.errors import UnsupportedFormat
from model_store.errors import EyepieceError
from server.errors import (
    ArchiveAnswerUnusable,
    ArchiveRefused,
    DependencyError,
    InvalidRequest,
    NotFound,
    Overloaded,
    SeriesDiffers,
    UploadIncomplete,
    UploadLocked,
    UploadTooLarge,
    WrongContentType,
)
from server.flow.find_instances import FindInstances
from server.flow.receive_series import ReceiveSeries, StowReason, TakenInstance
from server.slides.progress import Event, ProgressLog
from server.to_the_end import stop_beating
from server.uploads.dicom.archive import DicomwebArchive
from server.uploads.dicom.archive_client import ArchiveClient, ArchivedInstance
from server.uploads.dicom.dicom_instance import UID_PATTERN
from server.uploads.dicom.import_queue import LEASE_S, ImportQueue
from server.uploads.dicom.import_record import ImportFailure, ImportRecord, ImportShelf, import_id_of, new_import

log = structlog.get_logger(__name__)
# Before the second attempt and so on; then it has failed. A quarter of a day, for an archive that is maintained.
_WAITS_S = (5.0, 30.0, 120.0, 600.0, 1_800.0, 3_600.0, 3_600.0, 3_600.0, 3_600.0, 3_600.0)
_MOST_KEPT = 5_000
_PASSING = (DependencyError, Overloaded, UploadLocked)
# What an archive answers wrongly it may have broken off; a third time it means it.
_WRONG_ANSWERS = 2


@dataclass(frozen=True)
class PullSeries:
    """Pulls series for all tenants. `series` waits far longer than others before it makes a slide of what is quiet: an
    import knows when it is through."""

    archives: Mapping[str, DicomwebArchive]
    imports: ImportShelf
    queue: ImportQueue
    progress: ProgressLog
    series: ReceiveSeries
    found: FindInstances
    waits_s: tuple[float, ...] = _WAITS_S
    most_kept: int = _MOST_KEPT

    async def begin(self, tenant: str, archive: str, study: str, series: str) -> ImportRecord:
        """Ask for a series. One that is being pulled goes on; one that is over begins anew.

        Raises:
            NotFound: the tenant has no archive of this name.
            InvalidRequest: a UID is none.
            Overloaded: too many imports of the tenant are open, or were over in the last day.
        """
        self._archive(tenant, archive)
        if not UID_PATTERN.fullmatch(study) or not UID_PATTERN.fullmatch(series):
            raise InvalidRequest("`study` and `series` are UIDs: digits and dots, at most 64 characters.")
        known = await self.imports.find(tenant, import_id_of(archive, study, series))
        if known is None or not known.is_open:
            if known is None and await self.imports.count(tenant) >= self.most_kept:
                raise Overloaded(
                    f"{self.most_kept} imports are open or were over in the last day; ask again later.",
                    retry_after_s=600,
                )
            known = new_import(tenant, archive, study, series)
            await self.progress.forget(tenant, known.id)
            await self.imports.keep(known)
        await self.queue.put_if_absent(tenant, known.id)
        return known

    async def require(self, tenant: str, import_id: str) -> ImportRecord:
        """An import; raises NotFound."""
        found = await self.imports.find(tenant, import_id)
        if found is None:
            raise NotFound("There is no import of this id; POST /v1/imports begins one.")
        return found

    async def run(self, tenant: str, import_id: str) -> None:
        """Go on with an import that this process has the lease of; its record says what came of that."""
        record = await self.imports.find(tenant, import_id)
        if record is None or not record.is_open:
            await self.queue.remove(tenant, import_id)
            return
        holding = asyncio.create_task(self._hold(record))
        try:
            ended = await self._attempt(record)
        except asyncio.CancelledError:
            await stop_beating(holding)
            await self.queue.put(tenant, import_id)  # this process leaves: another one goes on now
            raise
        finally:
            await stop_beating(holding)
        await self._end(ended)

    async def find_forgotten(self, tenant: str, kept_s: float) -> None:
        """Give moments to imports that are open and have none: Redis was lost, or a process died. Those that have been
        over for `kept_s` are forgotten."""
        for record in await self.imports.all(tenant):
            if record.is_open:
                await self.queue.put_if_absent(tenant, record.id)
            elif (record.changed().changed_at - record.changed_at).total_seconds() > kept_s:
                await self.imports.remove(record)

    async def _hold(self, record: ImportRecord) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            await self.queue.renew(record.tenant, record.id)

    async def _attempt(self, record: ImportRecord) -> ImportRecord:
        """The record as it is afterwards."""
        record = record.changed(status="running", attempts=record.attempts + 1, error=None)
        await self.imports.keep(record)
        pulling = _Pulling(self, record)
        try:
            return (await pulling.run()).changed(status="done")
        except UploadIncomplete:
            missing = await self.series.missing(record.tenant, record.series)
            return pulling.record.changed(status="incomplete", missing=missing)
        except EyepieceError as error:
            failure = ImportFailure(code=error.code, detail=error.detail)
            goes_on = record.attempts <= min(_waits_for(error), len(self.waits_s))
            return pulling.record.changed(status="queued" if goes_on else "failed", error=failure)
        except RedisError:  # the lease ends, and it is tried again
            raise
        except Exception as error:  # tried again it would break again: it is told of, and ends
            log.error("import_broke", exc_info=error)
            failure = ImportFailure(code="internal_error", detail="This is a bug in Eyepiece; the log has it.")
            return pulling.record.changed(status="failed", error=failure)

    async def _end(self, record: ImportRecord) -> None:
        await self.imports.keep(record)
        code = None if record.error is None else record.error.code
        log.info("import_" + record.status, archive=record.archive, attempt=record.attempts, code=code)
        if record.is_open:
            await self.queue.put(record.tenant, record.id, self.waits_s[record.attempts - 1])
            return
        await self.queue.remove(record.tenant, record.id)
        await self.progress.append(record.tenant, record.id, last_event(record))

    def _archive(self, tenant: str, name: str) -> DicomwebArchive:
        archive = self.archives.get(name)
        if archive is None or tenant not in archive.tenants:
            raise NotFound("There is no archive of this name for your tenant; the operator names them.")
        return archive

    def client(self, record: ImportRecord) -> ArchiveClient:
        """Connections to the archive of an import; raises NotFound when it is not named any more."""
        return ArchiveClient(self._archive(record.tenant, record.archive))


class _Pulling:
    """One attempt; `record` is how far it has come."""

    def __init__(self, story: PullSeries, record: ImportRecord) -> None:
        self._story = story
        self.record = record

    async def run(self) -> ImportRecord:
        """The record with the slide."""
        record = self.record
        async with self._story.client(record) as archive:
            listed = [it for it in await archive.instances(record.study, record.series) if it.is_level]
            if not listed:
                raise UnsupportedFormat(
                    "The series has labels and overviews alone; give the UID of the series with the levels."
                )
            if (slide_id := await self._slide_of(listed)) is not None:
                return await self._note(total=len(listed), done=len(listed), slide_id=slide_id)
            await self._note(total=len(listed), done=0, size_bytes=0)
            levels = 0
            for it in listed:
                levels += await self._fetch(archive, it)
                await self._note(done=self.record.done + 1)
        if not levels:
            raise UnsupportedFormat("The series has no VL Whole Slide Microscopy Image; give the UID of one that has.")
        return await self._note(slide_id=await self._story.series.make(record.tenant, record.series))

    async def _slide_of(self, listed: list[ArchivedInstance]) -> str | None:
        """The slide that is this series already; None when there is none.

        Raises:
            SeriesDiffers: the archive has instances that it has not.
        """
        with suppress(NotFound):
            found = await self._story.found.of_series(self.record.tenant, self.record.study, self.record.series)
            own = {it.sop_instance for it in found.series.instances}
            if not {it.uid for it in listed} <= own:
                raise _differs()
            return found.record.id
        return None

    async def _fetch(self, archive: ArchiveClient, it: ArchivedInstance) -> bool:
        """Whether it is a level of the slide, which it may not be."""
        record, series = self.record, self._story.series
        known_bytes = await series.has(record.tenant, record.series, it.uid)
        if known_bytes is not None:
            await self._note(size_bytes=record.size_bytes + known_bytes)
            return True
        async with archive.instance(record.study, record.series, it.uid) as (content_type, body):
            counted = self._counted(body)
            try:
                taken = await series.receive(record.tenant, counted, content_type, 0, record.study, record.series)
            except (InvalidRequest, WrongContentType) as error:
                raise ArchiveAnswerUnusable(f"The archive's answer is no instance: {error.detail}") from error
        if len(taken) != 1 or taken[0].instance is None or taken[0].instance.sop_instance != it.uid:
            raise ArchiveAnswerUnusable("The archive sent another instance than the one that it was asked for.")
        return _require_taken(taken[0])

    async def _counted(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same, as long as the whole series is no larger than a slide may be."""
        most_bytes = self._story.series.uploads.admission.max_upload_bytes
        size_bytes = self.record.size_bytes
        async for piece in body:
            size_bytes += len(piece)
            if size_bytes > most_bytes:
                raise UploadTooLarge(f"The series is larger than the {most_bytes} bytes that a slide may have.")
            yield piece
        self.record = self.record.changed(size_bytes=size_bytes)

    async def _note(self, **changes: object) -> ImportRecord:
        """How far it is, for whoever asks or follows."""
        record = self.record = self.record.changed(**changes)
        await self._story.imports.keep(record)
        await self._story.progress.append(record.tenant, record.id, progress_event(record))
        return record


def progress_event(record: ImportRecord) -> Event:
    """How far an import is."""
    return Event("progress", {"done": record.done, "total": record.total, "size_bytes": record.size_bytes})


def last_event(record: ImportRecord) -> Event:
    """What became of an import that is over."""
    if record.status == "done":
        return Event("done", {"slide_id": record.slide_id})
    if record.status == "incomplete":
        return Event("incomplete", {"missing": list(record.missing)})
    failure = record.error
    return Event("failed", {} if failure is None else failure.model_dump())


def _require_taken(taken: TakenInstance) -> bool:
    """Whether it is kept as a level; raises why it could not be."""
    if taken.error is not None:
        raise taken.error
    if taken.reason is StowReason.DUPLICATE:
        raise _differs()
    if taken.reason is StowReason.DOES_NOT_MATCH:
        raise ArchiveAnswerUnusable("The archive sent an instance of another study or series.")
    return taken.reason is None


def _differs() -> SeriesDiffers:
    return SeriesDiffers(
        "The series has come already, with other instances than the archive has now; delete its slide and pull again."
    )


def _waits_for(error: EyepieceError) -> int:
    """How often it is tried again."""
    if isinstance(error, ArchiveAnswerUnusable):
        return _WRONG_ANSWERS
    return len(_WAITS_S) if isinstance(error, _PASSING) and not isinstance(error, ArchiveRefused) else 0
