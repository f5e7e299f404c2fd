"""What is kept of the instances of a slide that is a DICOM series, beside the slide: what their headers say, and where
their frames lie. Made when the slide comes, by a process of the sandbox; what is served is read from here.

    dicom/series.json                       its instances, and of each what can be searched for
    dicom/<sha256 of an instance>.json      the whole header in DICOM JSON (PS3.18, annex F)
    dicom/<sha256 of an instance>.frames    int64 little-endian [frame_count, 2]: offset, byte count
"""

import struct
from collections.abc import Sequence
from typing import Any

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

import encoders.errors
from server.slides.slide_record import SlideError, SlideRecord
from server.storage.slide_store import SlidePaths, SlideStore
from server.uploads.dicom.described_instances import DescribedInstance

log = structlog.get_logger(__name__)
_ROW = struct.Struct("<qq")


class StoredInstance(BaseModel):
    """A level of a slide, or a part of one. `attributes` are those of `encoders.dicom.searched_attributes`."""

    model_config = ConfigDict(frozen=True)

    sop_class: str
    sop_instance: str
    transfer_syntax: str
    sha256: str
    size_bytes: int
    # Frames of which it is known where they lie; 0 when it is not.
    frame_count: int
    has_metadata: bool
    attributes: dict[str, dict[str, Any]]


class StoredSeries(BaseModel):
    """A slide's instances; `failure` says why there are none."""

    model_config = ConfigDict(frozen=True)

    format_version: int = 1
    study: str
    series: str
    instances: tuple[StoredInstance, ...]
    failure: SlideError | None = None


class InstanceShelf:
    """Of all tenants."""

    def __init__(self, store: SlideStore) -> None:
        self._store = store

    async def keep(self, record: SlideRecord, found: Sequence[DescribedInstance] | encoders.errors.SlideError) -> int:
        """Keep what was found, or why nothing was; the bytes that it takes. The list comes last."""
        if isinstance(found, encoders.errors.SlideError):
            failure, described = SlideError(code=found.code, detail=found.detail), list[DescribedInstance]()
        else:
            failure, described = None, list(found)
        written = 0
        for it in described:
            sha256, metadata, frames = it.file.sha256, it.described.metadata, it.described.frames
            if metadata is not None:
                await self._store.put(record.paths.dicom_metadata(sha256), metadata)
                written += len(metadata)
            if frames is not None:
                await self._store.put(record.paths.dicom_frames(sha256), frames.tobytes())
                written += frames.nbytes
        series = StoredSeries(
            study=record.study_uid or "",
            series=record.series_uid or "",
            instances=tuple(_stored(it) for it in described),
            failure=failure,
        )
        content = series.model_dump_json().encode()
        await self._store.put(record.paths.dicom_series, content)
        return written + len(content)

    async def series(self, paths: SlidePaths) -> StoredSeries | None:
        """A slide's instances; None when there is no such slide, nobody has looked, or what is kept cannot be read."""
        content = await self._store.get(paths.dicom_series)
        try:
            return None if content is None else StoredSeries.model_validate_json(content)
        except ValidationError:
            log.warning("dicom_series_unreadable", slide=paths.slide_id[:12])
            return None

    async def metadata(self, paths: SlidePaths, instance: StoredInstance) -> bytes | None:
        """The whole header in DICOM JSON."""
        return await self._store.get(paths.dicom_metadata(instance.sha256)) if instance.has_metadata else None

    async def frames(self, paths: SlidePaths, instance: StoredInstance) -> list[tuple[int, int]] | None:
        """(offset, byte count) of each frame; None where nobody can say."""
        if not instance.frame_count:
            return None
        content = await self._store.get(paths.dicom_frames(instance.sha256))
        if content is None or len(content) != instance.frame_count * _ROW.size:
            return None
        return list(_ROW.iter_unpack(content))


def _stored(it: DescribedInstance) -> StoredInstance:
    frames = it.described.frames
    return StoredInstance(
        sop_class=it.instance.sop_class,
        sop_instance=it.instance.sop_instance,
        transfer_syntax=it.described.transfer_syntax,
        sha256=it.file.sha256,
        size_bytes=it.file.size_bytes,
        frame_count=0 if frames is None else len(frames),
        has_metadata=it.described.metadata is not None,
        attributes={tag: dict(it.described.attributes[tag]) for tag in it.described.attributes},
    )
