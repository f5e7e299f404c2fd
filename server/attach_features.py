"""Precomputed features for a slide that is there already: received like a slide, kept beside it, encoded instead."""

import asyncio
import shutil
from collections.abc import AsyncIterator

from encoders.errors import UnsupportedFormat
from encoders.precomputed.features_kind import features_kind
from encoders.tiling.foreign_files import foreign_file
from encoders.tiling.slide_kind import may_be_slide
from encoders.types import SlideFacts
from server.errors import InvalidRequest, NotFound
from server.flow import admit_upload
from server.one_slide import SourceFile
from server.parts import Parts
from server.slides import SlideRecord
from server.upload import ReceivedSlide, receive_slide


async def attach_features(
    record: SlideRecord, body: AsyncIterator[bytes], content_type: str, announced_bytes: int, parts: Parts
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
    limits = await admit_upload(record.tenant, announced_bytes, parts)
    received = await receive_slide(body, content_type, parts.store.new_staging_path(), limits, parts.metrics)
    try:
        file = _features_file(received)
        await parts.inspector.check_features(record.tenant, file.path, parts.manifest, _facts_of(record))
        key = record.paths.given_features(file.sha256)
        async with parts.usage.room_for(record.tenant, file.size_bytes) as room:
            room.is_used = not await parts.store.exists(key)
            # Replaced: these bytes were just hashed, those that are there may have been damaged since.
            await parts.store.publish_file(file.path, key, replace=True)
    finally:
        await asyncio.to_thread(shutil.rmtree, received.folder, ignore_errors=True)

    def attached(stored: SlideRecord) -> SlideRecord:
        return parts.slides.with_features(stored, file.sha256).model_copy(update={"error": None})

    changed = await parts.slides.update(record, attached)
    if changed is None:
        await parts.slides.remove_orphan(record.tenant, record.id)
        raise NotFound("The slide was deleted meanwhile.")
    return changed


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
