"""/v1/dicomweb, retrieving: metadata, instances, frames and pictures of slides that came as DICOM (WADO-RS, DICOM
PS3.18, 10.4)."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from encoders.errors import SlideTooLarge, UnreadableSlide, UnsupportedFormat
from server.admission.slots import TenantSlots
from server.api.access import Tenant
from server.api.audited import note_slide
from server.api.contract.errors import may_raise
from server.api.contract.parameters import InstanceOfSlide, SeriesOfSlide, StudyOfSlide
from server.api.dependencies import DownloadSlotsDep, DrainDep, FindInstancesDep, StoreDep, ThumbnailsDep
from server.api.dicom_accept import DICOM, FRAME_TYPES, MULTIPART, frame_type, require_files, require_json
from server.api.dicom_json import DICOM_JSON
from server.api.dicom_parts import MultipartBody, StoredPart
from server.api.downloads import Download, in_small_pieces, slot_of
from server.api.request_log import CLIENT_CLOSED
from server.api.routes.keyed_route import KeyedRoute
from server.api.routes.pictures import accepted_form
from server.api.stream import unless_disconnected
from server.errors import InvalidRequest, NotAcceptable, NotFound, Overloaded, SlideReaderLost
from server.flow.find_instances import FoundSlide
from server.slides.instance_shelf import StoredInstance
from server.slides.thumbnails import Thumbnails
from server.storage.slide_store import SlideStore

router = APIRouter(prefix="/v1/dicomweb/studies", tags=["dicomweb"], route_class=KeyedRoute)
_STUDY, _SERIES = "/{study_uid}", "/{study_uid}/series/{series_uid}"
_INSTANCE = f"{_SERIES}/instances/{{instance_uid}}"
_MOST_FRAMES = 1_000
_FRAMES = re.compile(r"[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*")
_VIEWPORT = re.compile(r"([1-9][0-9]{0,4}),([1-9][0-9]{0,4})")
_LEAST_PX, _THUMBNAIL_PX, _MOST_PX = 16, 256, 2048
_WIDTH, _HEIGHT = "00480006", "00480007"
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_DATASETS = {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/DicomDataset"}}}
_MISSES = (NotFound, NotAcceptable, Overloaded)
_OF_METADATA: dict[str, Any] = {
    "response_class": StreamingResponse,
    "response_description": "All attributes but pixels, of each instance.",
    "responses": {200: {"content": {DICOM_JSON: _DATASETS}}, **may_raise(*_MISSES)},
}
_OF_FILES: dict[str, Any] = {
    "response_class": StreamingResponse,
    "response_description": f"Parts of `{DICOM}`, each a file.",
    "responses": {
        200: {"content": {MULTIPART: {"schema": {"$ref": "#/components/schemas/DicomInstances"}}}},
        **may_raise(*_MISSES),
    },
}
_OF_PICTURES: dict[str, Any] = {
    "response_class": Response,
    "response_description": "The picture.",
    "responses": {
        200: {"content": {"image/jpeg": _BINARY, "image/png": _BINARY}},
        **may_raise(*_MISSES, UnsupportedFormat, UnreadableSlide, SlideTooLarge, SlideReaderLost),
    },
}
Viewport = Annotated[
    str | None,
    Query(
        description=f"Width and height that the picture fits into, in pixels, at most {_MOST_PX} each.",
        examples=["512,512"],
        json_schema_extra={"pattern": f"^{_VIEWPORT.pattern}$"},
    ),
]
FrameNumbers = Annotated[
    str,
    Path(
        description=f"Numbers of frames, from 1, with commas; at most {_MOST_FRAMES}.",
        examples=["1,2"],
        json_schema_extra={"pattern": f"^{_FRAMES.pattern}$"},
    ),
]


async def _series(
    request: Request, study_uid: StudyOfSlide, series_uid: SeriesOfSlide, tenant: Tenant, story: FindInstancesDep
) -> FoundSlide:
    found = await story.of_series(tenant, study_uid, series_uid)
    note_slide(request, found.record.id)
    return found


SlideOfSeries = Annotated[FoundSlide, Depends(_series)]


async def _instance(found: SlideOfSeries, instance_uid: InstanceOfSlide) -> StoredInstance:
    return found.instance(instance_uid)


OneInstance = Annotated[StoredInstance, Depends(_instance)]


@dataclass(frozen=True)
class Retrieval:
    """What answers with what is stored."""

    accept: str
    tenant: str
    store: SlideStore
    slots: TenantSlots

    def metadata(self, instances: Sequence[tuple[FoundSlide, StoredInstance]]) -> Response:
        """The headers of these instances."""
        require_json(self.accept)
        if not all(instance.has_metadata for _, instance in instances):
            raise NotFound("A header is too long to be sent as JSON, or cannot be; ask for the instance itself.")
        keys = [found.record.paths.dicom_metadata(instance.sha256) for found, instance in instances]
        content = in_small_pieces(self._json_array(keys))
        return Download(content, slot_of(self.slots, self.tenant), media_type=DICOM_JSON, headers={})

    def files(self, instances: Sequence[tuple[FoundSlide, StoredInstance]]) -> Response:
        """These instances' files."""
        require_files(self.accept, [it.transfer_syntax for _, it in instances])
        return self.parts(
            [StoredPart(found.file_key(it), it.size_bytes, DICOM, it.transfer_syntax) for found, it in instances]
        )

    def parts(self, parts: Sequence[StoredPart]) -> Response:
        """These parts, one after the other."""
        body = MultipartBody(self.store, parts)
        headers = {"Content-Length": str(body.size_bytes)}
        held = slot_of(self.slots, self.tenant)
        return Download(body.stream(), held, media_type=body.content_type, headers=headers)

    async def _json_array(self, keys: Sequence[str]) -> AsyncIterator[bytes]:
        for index, key in enumerate(keys):
            yield b"," if index else b"["
            async for piece in self.store.stream(key):
                yield piece
        yield b"]"


async def _retrieval(request: Request, tenant: Tenant, store: StoreDep, slots: DownloadSlotsDep) -> Retrieval:
    return Retrieval(request.headers.get("accept", ""), tenant, store, slots)


RetrievalDep = Annotated[Retrieval, Depends(_retrieval)]


@dataclass(frozen=True)
class Rendering:
    """What answers with a picture; `viewport_px` is its longer side, where the client says it."""

    request: Request
    pictures: Thumbnails
    cut: "asyncio.Future[None]"
    viewport_px: int | None

    async def picture(self, found: FoundSlide, usual_px: int, level_px: int = _MOST_PX) -> Response:
        """The slide, no larger than its level."""
        most_px = max(min(self.viewport_px or usual_px, level_px, _MOST_PX), _LEAST_PX)
        form = accepted_form(self.request.headers.get("accept", ""))
        drawn = await unless_disconnected(self.request, self.pictures.picture(found.record, most_px, form), self.cut)
        if drawn is None:
            return Response(status_code=CLIENT_CLOSED)
        return Response(drawn, media_type=f"image/{form}")


async def _rendering(
    request: Request, pictures: ThumbnailsDep, drain: DrainDep, viewport: Viewport = None
) -> Rendering:
    return Rendering(request, pictures, drain.cut, None if viewport is None else _longer_side_px(viewport))


RenderingDep = Annotated[Rendering, Depends(_rendering)]


@router.get(f"{_STUDY}/metadata", **_OF_METADATA)
async def get_study_metadata(
    study_uid: StudyOfSlide, tenant: Tenant, story: FindInstancesDep, retrieval: RetrievalDep
) -> Response:
    """WADO-RS: the headers of all instances of a study's slides."""
    return retrieval.metadata(_all_of(await story.of_study(tenant, study_uid)))


@router.get(f"{_SERIES}/metadata", **_OF_METADATA)
async def get_series_metadata(found: SlideOfSeries, retrieval: RetrievalDep) -> Response:
    """WADO-RS: the headers of a slide's instances."""
    return retrieval.metadata(_all_of([found]))


@router.get(f"{_INSTANCE}/metadata", **_OF_METADATA)
async def get_instance_metadata(found: SlideOfSeries, instance: OneInstance, retrieval: RetrievalDep) -> Response:
    """WADO-RS: the header of an instance."""
    return retrieval.metadata([(found, instance)])


@router.get(_STUDY, **_OF_FILES)
async def get_study(
    study_uid: StudyOfSlide, tenant: Tenant, story: FindInstancesDep, retrieval: RetrievalDep
) -> Response:
    """WADO-RS: all instances of a study's slides, byte for byte as they came."""
    return retrieval.files(_all_of(await story.of_study(tenant, study_uid)))


@router.get(_SERIES, **_OF_FILES)
async def get_series(found: SlideOfSeries, retrieval: RetrievalDep) -> Response:
    """WADO-RS: a slide's instances, byte for byte as they came. Labels, overviews and thumbnails are not sent."""
    return retrieval.files(_all_of([found]))


@router.get(_INSTANCE, **_OF_FILES)
async def get_instance(found: SlideOfSeries, instance: OneInstance, retrieval: RetrievalDep) -> Response:
    """WADO-RS: an instance, byte for byte as it came."""
    return retrieval.files([(found, instance)])


@router.get(
    f"{_INSTANCE}/frames/{{frame_numbers}}",
    response_class=StreamingResponse,
    response_description="Parts, each a frame as it is stored.",
    responses={
        200: {
            "description": f"Parts of {', '.join(f'`{it}`' for it in FRAME_TYPES)}.",
            "content": {MULTIPART: {"schema": {"$ref": "#/components/schemas/DicomFrames"}}},
        },
        **may_raise(*_MISSES),
    },
)
async def get_frames(
    frame_numbers: FrameNumbers,
    found: SlideOfSeries,
    instance: OneInstance,
    story: FindInstancesDep,
    retrieval: RetrievalDep,
) -> Response:
    """WADO-RS: frames of an instance, compressed as they came; nothing is decoded."""
    numbers = _numbers(frame_numbers)
    media_type = frame_type(retrieval.accept, instance.transfer_syntax)
    frames = await story.shelf.frames(found.record.paths, instance)
    if frames is None:
        raise NotFound("Where this instance's frames lie cannot be told; ask for the instance itself.")
    if max(numbers) > len(frames):
        raise NotFound(f"The instance has {len(frames)} frames; their numbers begin with 1.")
    key, syntax = found.file_key(instance), instance.transfer_syntax
    spans = [frames[number - 1] for number in numbers]
    return retrieval.parts(
        [StoredPart(key, size, media_type, syntax, (offset, offset + size)) for offset, size in spans]
    )


@router.get(f"{_SERIES}/thumbnail", **_OF_PICTURES)
async def get_series_thumbnail(found: SlideOfSeries, rendering: RenderingDep) -> Response:
    """WADO-RS: a small picture of the slide's tissue, never of its label."""
    return await rendering.picture(found, _THUMBNAIL_PX)


@router.get(f"{_SERIES}/rendered", **_OF_PICTURES)
async def get_rendered_series(found: SlideOfSeries, rendering: RenderingDep) -> Response:
    """WADO-RS: the slide as one picture, as large as `viewport` or 2,048 px allow; tiles of it are DeepZoom's."""
    return await rendering.picture(found, _MOST_PX)


@router.get(f"{_INSTANCE}/thumbnail", **_OF_PICTURES)
async def get_instance_thumbnail(found: SlideOfSeries, instance: OneInstance, rendering: RenderingDep) -> Response:
    """WADO-RS: as the thumbnail of its series, of which each instance shows the same tissue."""
    return await rendering.picture(found, _THUMBNAIL_PX, _level_px(instance))


@router.get(f"{_INSTANCE}/rendered", **_OF_PICTURES)
async def get_rendered_instance(found: SlideOfSeries, instance: OneInstance, rendering: RenderingDep) -> Response:
    """WADO-RS: the level that the instance is of as one picture, no larger than the level, `viewport` or 2,048 px."""
    return await rendering.picture(found, _MOST_PX, _level_px(instance))


def _all_of(slides: Sequence[FoundSlide]) -> list[tuple[FoundSlide, StoredInstance]]:
    return [(found, instance) for found in slides for instance in found.series.instances]


def _longer_side_px(viewport: str) -> int:
    match = _VIEWPORT.fullmatch(viewport)
    if match is None:
        raise InvalidRequest("`viewport` is a width and a height in pixels with a comma between; nothing is cut out.")
    return max(int(match[1]), int(match[2]))


def _level_px(instance: StoredInstance) -> int:
    """The longer side of the level that it is of."""
    sides = [instance.attributes.get(tag, {}).get("Value", [0])[0] for tag in (_WIDTH, _HEIGHT)]
    return max((int(side) for side in sides if isinstance(side, int) and side > 0), default=_MOST_PX)


def _numbers(text: str) -> list[int]:
    if not _FRAMES.fullmatch(text):
        raise NotFound("Frames are named by their numbers, from 1, with commas between.")
    numbers = [int(number) for number in text.split(",")]
    if len(numbers) > _MOST_FRAMES:
        raise InvalidRequest(f"At most {_MOST_FRAMES} frames are sent at once.")
    return numbers
