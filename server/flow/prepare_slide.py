"""A slide gets ready: upload → look inside → keep → queue. The worker goes on (server.encoding.encode_job)."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from encoders.errors import ReaderDied, SlideError
from encoders.precomputed.features_kind import features_kind
from server.errors import NotFound, Overloaded
from server.flow.admit_upload import AdmitUpload
from server.flow.queue_encode import QueueEncode
from server.flow.slide_states import SlideStates
from server.slides.catalogue import SlideCatalogue
from server.slides.instance_shelf import InstanceShelf
from server.slides.public_slide import Slide, describe_unreadable
from server.slides.series_index import SeriesIndex
from server.slides.slide_record import FEATURES_VENDOR, SlideRecord
from server.slides.usage import Usage
from server.storage.slide_store import SlideStore
from server.telemetry.metrics import Metrics
from server.uploads.dicom.described_instances import DescribedInstance, describe_instances
from server.uploads.dicom.dicom_instance import read_instance
from server.uploads.slide_inspection import SlideInspector
from server.uploads.slide_source import find_entry, publish_source, source_is_whole
from server.uploads.upload import ReceivedSlide, display_name, receive_slide

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class PreparedSlide:
    """A slide that was uploaded; `created` is False when the tenant had its content already.

    `fills_room`: its bytes are counted from now on, those that were reserved for it first.
    """

    slide: Slide
    created: bool
    fills_room: bool = False


@dataclass(frozen=True)
class PrepareSlide:
    """Receives slides for all tenants."""

    admission: AdmitUpload
    store: SlideStore
    slides: SlideCatalogue
    series: SeriesIndex
    instances: InstanceShelf
    usage: Usage
    inspector: SlideInspector
    encodes: QueueEncode
    states: SlideStates
    metrics: Metrics

    async def prepare(
        self, tenant: str, body: AsyncIterator[bytes], content_type: str, announced_bytes: int
    ) -> PreparedSlide:
        """Receive a slide in one request, then `take_in`."""
        limits = await self.admission.admit(tenant, announced_bytes)
        received = await receive_slide(body, content_type, self.store.new_staging_path(), limits, self.metrics)
        return await self.take_in(tenant, received)

    async def take_in(self, tenant: str, received: ReceivedSlide, reserved_bytes: int = 0) -> PreparedSlide:
        """Refuse what is no slide, keep it, and queue its encode; however it was received, and gone from its folder
        then. `reserved_bytes` of the tenant's quota are counted for it already."""
        try:
            known = await self.slides.look(tenant, received.slide_id)
            if isinstance(known, SlideRecord):
                return await self._mended(await self._described(known, received), received)
            if known is not None and not known.replaceable:
                return PreparedSlide(describe_unreadable(known), created=False)
            record, fills_room = await self._keep(tenant, received, reserved_bytes)
        finally:
            await asyncio.to_thread(shutil.rmtree, received.folder, ignore_errors=True)
        with contextlib.suppress(Overloaded):  # it filled up meanwhile: the slide is kept, the reconciler queues it
            await self.encodes.enqueue_anew(record)
        return PreparedSlide(await self.states.show(record), created=True, fills_room=fills_room)

    async def _keep(self, tenant: str, received: ReceivedSlide, reserved_bytes: int) -> tuple[SlideRecord, bool]:
        record = await self._inspect_upload(tenant, received)
        described = await self._describe(record, received)
        async with (
            self.slides.lock(tenant, received.slide_id),  # the reconciler removes folders without a record
            self.usage.room_for(tenant, received.size_bytes - reserved_bytes) as room,
        ):
            await self.slides.announce(record)
            await publish_source(self.store, record.paths, received.files, replace=True)
            room.is_used = await self.slides.create(record)
            if described is not None:
                await self.usage.count_stored(tenant, await self.instances.keep(record, described))
            await self.series.note(record)
        return await self.slides.require(tenant, received.slide_id), room.is_used

    async def _describe(
        self, record: SlideRecord, received: ReceivedSlide
    ) -> Sequence[DescribedInstance] | SlideError | None:
        """What the headers of a DICOM series say, or why that cannot be said; None where nobody could look, which is
        made up for when somebody asks. A slide that can be read is kept in any case."""
        if record.series_uid is None:
            return None
        folder = self.store.new_staging_path()
        try:
            return await describe_instances(record.tenant, record.series_uid, received.files, folder, self.inspector)
        except SlideError as error:
            log.warning("instances_not_described", slide=record.id[:12], code=error.code)
            return error
        except ReaderDied:
            log.warning("instances_not_described", slide=record.id[:12])
            return None

    async def _inspect_upload(self, tenant: str, received: ReceivedSlide) -> SlideRecord:
        """The record of what was received. Features are only recognised here; the worker reads them and knows the
        model."""
        first = received.files[0]
        name = display_name(first.relative_path)
        record = self.slides.new_record(tenant, received.slide_id, name, received.size_bytes)
        record = record.model_copy(update={"metadata": received.metadata})
        if len(received.files) == 1 and features_kind(first.path) is not None:
            return record.model_copy(update={"vendor": FEATURES_VENDOR})
        entry = await find_entry(tenant, received.files, received.folder, self.inspector)
        name = display_name(entry.relative_path or first.relative_path)
        opened = next((it for it in received.files if it.relative_path == entry.relative_path), first)
        changes = {"entry": entry.relative_path, "filename": name, **await asyncio.to_thread(_series_of, opened.path)}
        return record.with_facts(entry.facts).model_copy(update=changes)

    async def _described(self, record: SlideRecord, received: ReceivedSlide) -> SlideRecord:
        """The record with what this upload says of the slide, in place of what was said of the same before."""
        metadata = record.metadata.with_said(received.metadata)
        if metadata == record.metadata:
            return record
        changed = await self.slides.update(record, lambda it: it.model_copy(update={"metadata": metadata}))
        if changed is None:
            raise NotFound("The slide was deleted meanwhile.")
        return changed

    async def _mended(self, record: SlideRecord, received: ReceivedSlide) -> PreparedSlide:
        """A slide that is known: nothing happens, unless its stored source is gone or is not what was uploaded.

        Its bytes are compared when it failed, for that may be why; else the sizes have to do, or every upload would
        read them.
        """
        await self.series.note(record)  # an upload that died behind its record has not
        by_digest = record.error is not None
        if await source_is_whole(self.store, record.paths, received.files, by_digest=by_digest):
            return PreparedSlide(await self.states.show(record), created=False)
        async with self.slides.lock(record.tenant, record.id):
            await publish_source(self.store, record.paths, received.files, replace=True)
        log.info("source_mended", slide=record.id[:12])
        changed = await self.slides.update(record, lambda stored: stored.model_copy(update={"error": None}))
        if changed is None:
            await self.slides.remove_orphan(record.tenant, record.id)
            raise NotFound("The slide was deleted meanwhile.")
        with contextlib.suppress(Overloaded):  # as above
            return PreparedSlide(await self.encodes.encode_again(record, changed), created=True)
        return PreparedSlide(await self.states.show(changed), created=True)


def _series_of(path: Path) -> dict[str, str]:
    """Of a DICOM file, what the record says of its series."""
    instance = read_instance(path)
    return {} if instance is None else {"study_uid": instance.study, "series_uid": instance.series}
