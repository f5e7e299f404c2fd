"""Precomputed features for a slide that is there already: received like a slide, kept beside it, encoded instead."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass

from encoders.errors import UnsupportedFormat
from encoders.precomputed.features_kind import features_kind
from encoders.tiling.foreign_files import foreign_file
from encoders.tiling.slide_kind import may_be_slide
from encoders.types import SlideFacts, SlideWarning
from model_store.manifest import Manifest
from server.errors import InvalidRequest, NotFound
from server.flow.admit_upload import AdmitUpload
from server.slides.catalogue import SlideCatalogue
from server.slides.slide_record import SlideRecord
from server.slides.usage import Usage
from server.storage.slide_store import SlideStore
from server.telemetry.metrics import Metrics
from server.uploads.one_slide import SourceFile
from server.uploads.slide_inspection import FeaturesSlide, SlideInspector
from server.uploads.slide_source import local_source
from server.uploads.upload import ReceivedSlide, receive_slide


@dataclass(frozen=True)
class AttachFeatures:
    """Keeps features beside slides of all tenants."""

    admission: AdmitUpload
    store: SlideStore
    slides: SlideCatalogue
    usage: Usage
    inspector: SlideInspector
    manifest: Manifest
    metrics: Metrics

    async def attach(
        self, record: SlideRecord, body: AsyncIterator[bytes], content_type: str, announced_bytes: int
    ) -> SlideRecord:
        """Receive a features file and make the record name it; the same file again changes nothing but a failure.

        Raises:
            InvalidRequest: more than one file, or a slide that is made of features itself.
            UnsupportedFormat: not a features file, by its first bytes.
            UnusableFeatures: not the served model's, or not this slide's; the slide stays as it is.
            NotFound: the slide was deleted meanwhile.
        """
        if not record.has_pixels:
            raise InvalidRequest("This slide was uploaded as features; upload other features as a slide of their own.")
        limits = await self.admission.admit(record.tenant, announced_bytes)
        received = await receive_slide(
            body, content_type, self.store.new_staging_path(), limits, self.metrics, describes=False
        )
        try:
            file = _features_file(received)
            doubts = await self._check(record, file)
            key = record.paths.given_features(file.sha256)
            async with self.usage.room_for(record.tenant, file.size_bytes) as room:
                room.is_used = not await self.store.exists(key)
                # Replaced: these bytes were just hashed, those that are there may have been damaged since.
                await self.store.publish_file(file.path, key, replace=True)
        finally:
            await asyncio.to_thread(shutil.rmtree, received.folder, ignore_errors=True)

        def attached(stored: SlideRecord) -> SlideRecord:
            return self.slides.with_features(stored, file.sha256, doubts).model_copy(update={"error": None})

        changed = await self.slides.update(record, attached)
        if changed is None:
            await self.slides.remove_orphan(record.tenant, record.id)
            raise NotFound("The slide was deleted meanwhile.")
        return changed

    async def _check(self, record: SlideRecord, features: SourceFile) -> tuple[SlideWarning, ...]:
        """Compares with the slide's own tissue, which takes a look at its pixels."""
        facts, override = _facts_of(record), record.mpp_override
        try:
            async with local_source(self.store, record.paths, record.entry) as source:
                slide = FeaturesSlide(facts, override, source.path, source.folder)
                return await self.inspector.check_features(record.tenant, features.path, self.manifest, slide)
        except FileNotFoundError:
            slide = FeaturesSlide(facts, override, None)
            return await self.inspector.check_features(record.tenant, features.path, self.manifest, slide)


def _facts_of(record: SlideRecord) -> SlideFacts | None:
    if record.vendor is None or record.width is None or record.height is None:
        return None
    return SlideFacts(record.vendor, record.width, record.height, record.mpp, record.objective_power)


def _features_file(received: ReceivedSlide) -> SourceFile:
    if len(received.files) != 1:
        raise InvalidRequest("Send one features file in the field `file`.")
    if features_kind(received.files[0].path) is None:
        if may_be_slide(received.files[0].path):
            raise UnsupportedFormat("This is a slide, not its features; upload it to POST /v1/slides.")
        raise UnsupportedFormat(foreign_file(received.files[0].path))
    return received.files[0]
