"""A slide comes in pieces: create → append, as often as the line breaks → the slide, by the way that all uploads take
(`server.flow.prepare_slide`). A slide of several files is as many uploads, and one word at the end."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import structlog

from encoders.errors import SlideError, UnsupportedFormat
from server.errors import (
    ChecksumMismatch,
    Draining,
    InvalidRequest,
    NotFound,
    UploadGone,
    UploadIncomplete,
    UploadLocked,
    UploadTooLarge,
    UploadTooLong,
    WrongOffset,
)
from server.flow.admit_upload import AdmitUpload
from server.flow.prepare_slide import PreparedSlide, PrepareSlide
from server.slides.usage import Usage
from server.uploads.dicom.missing_parts import missing_parts
from server.uploads.one_slide import MOST_FILES, SourceFile, require_one_tree
from server.uploads.resumable.append_bytes import Appended, Checksum, Ending, append_bytes
from server.uploads.resumable.open_uploads import OpenUploads
from server.uploads.resumable.running_hash import RunningHash, RunningHashes
from server.uploads.resumable.upload_locks import Hold, UploadLocks
from server.uploads.resumable.upload_record import Outcome, Refusal, UploadRecord, making_of, new_upload, until
from server.uploads.resumable.upload_shelf import UploadShelf
from server.uploads.slide_metadata import NOTHING_SAID, SlideMetadata
from server.uploads.upload import ReceivedSlide
from server.uploads.upload_files import UploadBudget, UploadLimits

log = structlog.get_logger(__name__)
_MOST_NAMED = 5


@dataclass(frozen=True)
class UploadPart:
    """The body of one request: where it belongs, and what its client says of it; sizes in bytes."""

    offset_bytes: int
    body: AsyncIterator[bytes]
    announced_bytes: int
    checksum: Checksum | None


@dataclass(frozen=True)
class UploadState:
    """How an upload stands. `outcome` is there when its slide is made or was refused; `prepared` when this was when."""

    upload: UploadRecord
    offset_bytes: int
    outcome: Outcome | None = None
    prepared: PreparedSlide | None = None


@dataclass(frozen=True)
class ReceiveUpload:
    """Receives uploads in pieces, for all tenants. They are kept for `lifetime_s` after their last byte."""

    admission: AdmitUpload
    shelf: UploadShelf
    locks: UploadLocks
    hashes: RunningHashes
    open_uploads: OpenUploads
    slides: PrepareSlide
    usage: Usage
    lifetime_s: float
    is_leaving: Callable[[], bool]

    async def create(self, tenant: str, length_bytes: int, metadata: Mapping[str, str], raw: str) -> UploadRecord:
        """Begin an upload; `metadata` is what the client says of its file, `raw` the same as it came.

        Raises:
            UploadTooLarge, QuotaExceeded, StorageFull, Overloaded, InvalidRequest, UnsupportedFormat.
        """
        if length_bytes > self.admission.max_upload_bytes:
            raise UploadTooLarge(
                f"The slide is larger than the limit of {self.admission.max_upload_bytes / 2**30:g} GiB."
            )
        if length_bytes == 0:
            raise UnsupportedFormat("A file is empty; send a whole-slide image.")
        upload = new_upload(tenant, length_bytes, metadata, raw, self.lifetime_s)
        if not upload.is_whole_slide:
            require_one_tree([upload.relative_path])
            await self._forget_if_over(upload)
        await self.admission.admit(tenant, length_bytes)
        await self.begin(upload)
        return upload

    async def begin(self, upload: UploadRecord) -> None:
        """Keep the record of a new upload and count it, and all the bytes that it will have; raises QuotaExceeded or
        Overloaded."""
        await self.open_uploads.begin(upload.tenant)
        try:
            async with self.usage.room_for(upload.tenant, upload.length_bytes) as room:
                await self.shelf.create(upload)
                room.is_used = True
        except BaseException:
            await self.open_uploads.end(upload.tenant, 1)
            raise

    async def append(self, tenant: str, upload_id: str, part: UploadPart) -> UploadState:
        """Put the next bytes behind those that have come; with the last ones, make the slide.

        Raises:
            NotFound, UploadGone, UploadLocked, WrongOffset, UploadTooLong, ChecksumMismatch, StorageFull: the upload
                is as it was.
            SlideError: all has come, and is no slide; the upload is gone.
        """
        async with self.locks.held(tenant, upload_id) as hold:
            upload = await self._require_open(tenant, upload_id)
            offset_bytes = await self.shelf.offset_bytes(upload)
            left_bytes = upload.length_bytes - offset_bytes
            if part.offset_bytes != offset_bytes:
                raise WrongOffset(f"The upload has {offset_bytes} bytes; go on from there.", offset_bytes)
            if part.announced_bytes > left_bytes:
                raise UploadTooLong(f"Only {left_bytes} bytes are missing; send no more.")
            self.admission.require_disk(part.announced_bytes)
            if upload.is_complete:
                return await self._whole(upload)
            upload, appended = await self._receive(upload, offset_bytes, part, hold)
            if appended.ending is Ending.TAKEN_OVER:
                if self.is_leaving():
                    raise Draining("This server is shutting down; go on with another one, or again.", retry_after_s=2)
                raise UploadLocked("Another request goes on with this upload.", retry_after_s=2)
            if upload.is_complete:
                return await self._whole(upload)
            if appended.ending is Ending.CUT_OFF:
                raise InvalidRequest("The request was cut off; what came of it is kept. Ask HEAD how far, and go on.")
            return UploadState(upload, appended.end_bytes)

    async def state(self, tenant: str, upload_id: str) -> UploadState:
        """How an upload stands, once nobody writes to it. A process that died between the last byte and the slide is
        made up for here.

        Raises:
            NotFound, UploadGone, UploadLocked.
        """
        async with self.locks.held(tenant, upload_id):
            upload = await self._require_open(tenant, upload_id)
            offset_bytes = await self.shelf.offset_bytes(upload)
            if offset_bytes < upload.length_bytes:
                return UploadState(upload, offset_bytes)
            return await self._whole(await self._completed(upload))

    async def look(self, tenant: str, upload_id: str) -> UploadState:
        """How an upload stands at this moment, whoever writes to it; raises NotFound."""
        upload = await self.shelf.require(tenant, upload_id)
        outcome = await self.shelf.outcome(tenant, upload.making)
        is_over = outcome is not None and outcome.slide_id is not None
        offset_bytes = upload.length_bytes if is_over else await self.shelf.offset_bytes(upload)
        return UploadState(upload, offset_bytes, outcome)

    async def finish(self, tenant: str, slide: str, count: int | None) -> PreparedSlide:
        """Make one slide of all uploads that name it `slide`; of `count`, where the client says how many they are.

        Raises:
            NotFound: nothing was uploaded under this name.
            UploadIncomplete: bytes or files are missing.
            SlideError: it is no slide; the uploads are gone.
        """
        making = making_of(slide)
        async with self.locks.held(tenant, making, to_the_end=True):
            outcome = await self.shelf.outcome(tenant, making)
            if outcome is not None:
                return await self._known(tenant, outcome)
            uploads = await self.shelf.of_making(tenant, making)
            if not uploads:
                raise NotFound("No upload names this slide; create them with POST /v1/uploads.")
            _require_all(uploads, count)
            return await self._make_slide(tenant, making, uploads)

    async def terminate(self, tenant: str, upload_id: str) -> None:
        """Forget an upload, and of a slide that is made of it everything but the slide; raises NotFound."""
        upload = await self.shelf.require(tenant, upload_id)
        async with self.locks.held(tenant, upload_id), self.locks.held(tenant, upload.making):
            upload = await self.shelf.require(tenant, upload_id)
            await self._remove([upload], over=await self.shelf.outcome(tenant, upload.making) is not None)

    async def sweep(self, tenant: str) -> int:
        """Remove what has expired, and make slides of what is whole; how many uploads are open then."""
        count = 0
        for making in await self.shelf.makings(tenant):
            with suppress(UploadLocked):
                count += await self._sweep_making(tenant, making)
        await self.open_uploads.correct(tenant, count)
        return count

    async def _sweep_making(self, tenant: str, making: str) -> int:
        uploads = await self.shelf.of_making(tenant, making)
        outcome = await self.shelf.outcome(tenant, making)
        if outcome is not None:
            if outcome.expires_at < until(0):
                await self.shelf.remove_making(tenant, making)
            return 0
        if uploads and max(it.expires_at for it in uploads) >= until(0):
            if len(uploads) == 1 and uploads[0].is_whole_slide:
                await self._make_up(uploads[0])
            return len(uploads)
        async with self.locks.held(tenant, making, patience_s=0.1):
            for upload in uploads:  # somebody who came back in the last moment keeps it
                async with self.locks.held(tenant, upload.id, patience_s=0.1):
                    if (await self.shelf.require(tenant, upload.id)).expires_at >= until(0):
                        return len(uploads)
                    await self._remove([upload], over=False)
                    log.info("upload_expired", upload=upload.id[-12:])
            await self.shelf.remove_making(tenant, making)
        return 0

    async def _make_up(self, upload: UploadRecord) -> None:
        """The slide of an upload that has all its bytes and whose process died, or had no room, before it was made."""
        if await self.shelf.offset_bytes(upload) == upload.length_bytes:
            with suppress(UploadGone, SlideError):
                await self.state(upload.tenant, upload.id)

    async def _require_open(self, tenant: str, upload_id: str) -> UploadRecord:
        """The upload, if it may go on; what was written of it without being verified is cut."""
        upload = await self.shelf.require(tenant, upload_id)
        outcome = await self.shelf.outcome(tenant, upload.making)
        if outcome is not None and outcome.error is not None:
            raise UploadGone(f"What was uploaded is no slide ({outcome.error.code}): {outcome.error.detail}")
        if outcome is None and await self._expiry(upload) < until(0):
            raise UploadGone("The upload has expired; create a new one.")
        if upload.verified_bytes is not None and not upload.is_complete:
            await asyncio.to_thread(self.shelf.data(upload).cut, upload.verified_bytes)
            upload = upload.model_copy(update={"verified_bytes": None})
        return upload

    async def _expiry(self, upload: UploadRecord) -> datetime:
        """When it expires; of a slide of several files not before the last of them."""
        if upload.expires_at >= until(0) or upload.is_whole_slide:
            return upload.expires_at
        return max(it.expires_at for it in await self.shelf.of_making(upload.tenant, upload.making))

    async def _forget_if_over(self, upload: UploadRecord) -> None:
        """The name of a slide that was made, or refused, may be used again."""
        if await self.shelf.outcome(upload.tenant, upload.making) is not None:
            async with self.locks.held(upload.tenant, upload.making):
                if await self.shelf.outcome(upload.tenant, upload.making) is not None:
                    await self.shelf.remove_making(upload.tenant, upload.making)

    async def _receive(
        self, upload: UploadRecord, offset_bytes: int, part: UploadPart, hold: Hold
    ) -> tuple[UploadRecord, Appended]:
        if part.checksum is not None:
            await self.shelf.keep(upload.model_copy(update={"verified_bytes": offset_bytes}))
        known = self.hashes.take(upload.id, offset_bytes)
        before = known.copy()
        data, span = self.shelf.data(upload), (offset_bytes, upload.length_bytes)
        limits = UploadLimits(self.admission.max_upload_bytes, self.admission.disk_reserve_bytes)
        room = UploadBudget(self.shelf.store.staging_dir, limits, self.slides.metrics)
        try:
            appended = await append_bytes(part.body, data, span, known, part.checksum, room, hold)
        except (ChecksumMismatch, UploadTooLong):
            self.hashes.keep(upload.id, before)
            await self.shelf.keep(upload)
            raise
        self.hashes.keep(upload.id, known if known.hashed_bytes <= appended.end_bytes else before)
        if appended.end_bytes == upload.length_bytes:
            return await self._completed(upload), appended
        upload = upload.renewed(self.lifetime_s)
        await self.shelf.keep(upload)
        return upload, appended

    async def _completed(self, upload: UploadRecord) -> UploadRecord:
        """All bytes are there: their hash becomes known."""
        if upload.is_complete:
            return upload
        known: RunningHash = self.hashes.take(upload.id, upload.length_bytes)
        sha256 = await asyncio.to_thread(known.digest_of, self.shelf.data(upload), upload.length_bytes)
        upload = upload.renewed(self.lifetime_s, sha256=sha256, verified_bytes=None)
        await self.shelf.keep(upload)
        return upload

    async def _whole(self, upload: UploadRecord) -> UploadState:
        """All its bytes are there: of an upload that is a whole slide, the slide is made unless it was already."""
        async with self.locks.held(upload.tenant, upload.making, to_the_end=True):
            outcome = await self.shelf.outcome(upload.tenant, upload.making)
            if outcome is not None or not upload.is_whole_slide:
                return UploadState(upload, upload.length_bytes, outcome)
            prepared = await self._make_slide(upload.tenant, upload.making, [upload])
            outcome = await self.shelf.outcome(upload.tenant, upload.making)
            return UploadState(upload, upload.length_bytes, outcome, prepared)

    async def _make_slide(self, tenant: str, making: str, uploads: Sequence[UploadRecord]) -> PreparedSlide:
        """The slide of whole uploads. What is none is remembered as that; what failed for another reason stays, and is
        tried again when somebody asks, or by the next sweep."""
        reserved_bytes = sum(upload.length_bytes for upload in uploads)
        received = await self._gather(uploads)
        try:
            prepared = await self.slides.take_in(tenant, received, reserved_bytes)
        except SlideError as error:
            refusal = Refusal(code=error.code, detail=error.detail)
            await self._end(tenant, making, uploads, Outcome(slide_id=None, error=refusal, expires_at=self._expires()))
            await self.usage.give_room_back(tenant, reserved_bytes)
            raise
        outcome = Outcome(slide_id=prepared.slide.id, error=None, expires_at=self._expires())
        await self._end(tenant, making, uploads, outcome)
        if not prepared.fills_room:
            await self.usage.give_room_back(tenant, reserved_bytes)
        self.slides.metrics.uploads.labels("created" if prepared.created else "known").inc()
        return prepared

    async def _gather(self, uploads: Sequence[UploadRecord]) -> ReceivedSlide:
        """The files as a one-shot upload leaves them: in a folder of their own, which may be emptied."""
        if len(uploads) > 1:
            require_one_tree([upload.relative_path for upload in uploads])
        about = _said_by_all(uploads)
        folder = self.shelf.store.new_staging_path()
        await asyncio.to_thread(folder.mkdir)
        files: list[SourceFile] = []
        try:
            for number, upload in enumerate(uploads):
                path = folder / str(number)
                await asyncio.to_thread(self.shelf.data(upload).bring, path)
                files.append(SourceFile(path, upload.relative_path, upload.length_bytes, upload.sha256 or ""))
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            raise
        return ReceivedSlide(folder, tuple(files), about)

    async def _end(self, tenant: str, making: str, uploads: Sequence[UploadRecord], outcome: Outcome) -> None:
        await self.shelf.end(tenant, making, outcome)
        await self.open_uploads.end(tenant, len(uploads))
        for upload in uploads:
            self.hashes.drop(upload.id)

    async def _remove(self, uploads: Sequence[UploadRecord], *, over: bool) -> None:
        for upload in uploads:
            await self.shelf.remove(upload)
            self.hashes.drop(upload.id)
            if not over:
                await self.usage.give_room_back(upload.tenant, upload.length_bytes)
                await self.open_uploads.end(upload.tenant, 1)

    async def _known(self, tenant: str, outcome: Outcome) -> PreparedSlide:
        """A slide that was made already, for a client that asks again."""
        if outcome.error is not None or outcome.slide_id is None:
            told = outcome.error.detail if outcome.error else ""
            raise UploadGone(f"What was uploaded is no slide: {told}")
        record = await self.slides.slides.require(tenant, outcome.slide_id)
        return PreparedSlide(await self.slides.states.show(record), created=False)

    def _expires(self) -> datetime:
        return until(self.lifetime_s)


def _said_by_all(uploads: Sequence[UploadRecord]) -> SlideMetadata:
    """What is said of the slide, by all its files or by some.

    Raises:
        InvalidRequest: two of them say different things.
    """
    about = NOTHING_SAID
    for upload in uploads:
        for field, _ in upload.about.values:
            if getattr(about, field) not in (None, (), getattr(upload.about, field)):
                raise InvalidRequest(f"The files of the slide differ in what they say as `{field}`; say one thing.")
        about = about.with_said(upload.about)
    return about


def _require_all(uploads: Sequence[UploadRecord], count: int | None) -> None:
    """Raises UploadIncomplete, or InvalidRequest for more files than a slide may have."""
    if len(uploads) > MOST_FILES:
        raise InvalidRequest(f"A slide of more than {MOST_FILES} files is not accepted.")
    missing = [upload.id for upload in uploads if not upload.is_complete]
    if missing:
        named = ", ".join(missing[:_MOST_NAMED]) + (" …" if len(missing) > _MOST_NAMED else "")
        raise UploadIncomplete(
            f"{len(missing)} of {len(uploads)} files have not come to their end ({named}); send the rest."
        )
    instances = [upload.instance for upload in uploads if upload.instance is not None]
    if instances and (lacking := missing_parts(instances)):
        raise UploadIncomplete(f"The series is not complete. {' '.join(lacking)} Send the rest.")
    if count is not None and count != len(uploads):
        raise UploadIncomplete(
            f"{len(uploads)} files were uploaded and {count} announced; send the others, or delete some."
        )
