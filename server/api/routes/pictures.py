"""/v1/slides/{id}/thumbnail and /tiles: the slide to look at, as one picture and as DeepZoom tiles."""

import re
import time
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from encoders.errors import SlideTooLarge, UnreadableSlide, UnsupportedFormat
from encoders.tiling.isolation.reader_protocol import PictureForm
from encoders.tiling.pictures.deep_zoom import TILE_PX, DeepZoom
from model_store.errors import EyepieceError
from server.api.access import Tenant
from server.api.contract.errors import OF_EVERY_RECORD, may_raise
from server.api.contract.headers import answer_headers, request_headers, unchanged
from server.api.contract.parameters import SlideId, TileColumn, TileLevel, TileRow
from server.api.dependencies import (
    CatalogueDep,
    DownloadSlotsDep,
    DrainDep,
    MetricsDep,
    OpenSlidesDep,
    ThumbnailsDep,
)
from server.api.downloads import Download, has_version, in_pieces, slot_of
from server.api.request_log import CLIENT_CLOSED
from server.api.routes.keyed_route import KeyedRoute
from server.api.stream import unless_disconnected
from server.errors import NoPixels, NotFound, Overloaded, SlideReaderLost
from server.slides.open_slides import no_such_tile
from server.slides.slide_record import SlideRecord

router = APIRouter(prefix="/v1/slides", tags=["slides"], route_class=KeyedRoute)
_JPEG, _XML = "image/jpeg", "application/xml"
_MEDIA_TYPES: dict[PictureForm, str] = {"jpeg": _JPEG, "png": "image/png"}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
# Of the pictures' making: a browser keeps what it has until this changes, however long.
_EDITION = 1
_KEPT_BY_BROWSERS = "private, max-age=86400, immutable"
# The key decides who sees a picture, also where two people share a browser.
_FOR_THIS_KEY = "Authorization"
_OF_A_PICTURE = ("ETag", "Vary")
_READING = (NotFound, NoPixels, UnsupportedFormat, UnreadableSlide, SlideTooLarge, Overloaded, SlideReaderLost)
_PICTURES = {media_type: _BINARY for media_type in _MEDIA_TYPES.values()}
_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")
_QUALITY = re.compile(r"q=([01](?:\.[0-9]{0,3})?)")


async def _with_pixels(slide_id: SlideId, tenant: Tenant, catalogue: CatalogueDep) -> SlideRecord:
    record = await catalogue.require(tenant, slide_id)
    if not record.has_pixels:
        raise NoPixels("This slide was uploaded as features; there is no picture of it. Upload the slide itself.")
    return record


RecordWithPixels = Annotated[SlideRecord, Depends(_with_pixels)]


async def _address(
    record: RecordWithPixels, level: TileLevel, column: TileColumn, row: TileRow
) -> tuple[int, int, int]:
    """Raises NotFound where there is no such tile, as far as the record tells."""
    if not all(_NUMBER.fullmatch(text) for text in (level, column, row)):
        raise no_such_tile()
    address = int(level), int(column), int(row)
    is_known = record.width is not None and record.height is not None
    if is_known and DeepZoom(record.width or 1, record.height or 1).place(*address) is None:
        raise no_such_tile()
    return address


TileAddress = Annotated[tuple[int, int, int], Depends(_address)]


@router.head(
    "/{slide_id}/thumbnail",
    name="head_thumbnail",
    response_class=Response,
    response_description="What GET would send, without its size.",
    openapi_extra=request_headers("Accept", "If-None-Match"),
    responses={
        200: {"content": _PICTURES, **answer_headers(*_OF_A_PICTURE)},
        304: unchanged(*_OF_A_PICTURE),
        **may_raise(NotFound, NoPixels, *OF_EVERY_RECORD),
    },
)
@router.get(
    "/{slide_id}/thumbnail",
    response_class=Response,
    response_description="The picture.",
    openapi_extra=request_headers("Accept", "If-None-Match"),
    responses={
        200: {"content": _PICTURES, **answer_headers(*_OF_A_PICTURE)},
        304: unchanged(*_OF_A_PICTURE),
        **may_raise(*OF_EVERY_RECORD, *_READING),
    },
)
async def get_thumbnail(
    record: RecordWithPixels,
    request: Request,
    tenant: Tenant,
    pictures: ThumbnailsDep,
    slots: DownloadSlotsDep,
    drain: DrainDep,
    max_px: Annotated[
        int, Query(ge=16, le=2048, description="Maximum width and height of the picture, in pixels.", examples=[1024])
    ] = 512,
) -> Response:
    """The tissue as JPEG, or as PNG where `Accept` asks for it; never the label or the macro image. Grey lines mark
    what was not scanned. HEAD does not draw it, so it does not say its size."""
    form = accepted_form(request.headers.get("accept", ""))
    headers = _headers(f"{record.id}-{max_px}-{form}", f"{_FOR_THIS_KEY}, Accept")
    if has_version(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":
        head = Response(media_type=_MEDIA_TYPES[form], headers=headers)
        del head.headers["Content-Length"]
        return head
    picture = await unless_disconnected(request, pictures.picture(record, max_px, form), drain.cut)
    if picture is None:
        return Response(status_code=CLIENT_CLOSED)
    headers["Content-Length"] = str(len(picture))
    return Download(in_pieces(picture), slot_of(slots, tenant), media_type=_MEDIA_TYPES[form], headers=headers)


@router.get(
    "/{slide_id}/tiles.dzi",
    response_class=Response,
    response_description="Size of the slide and of its tiles.",
    openapi_extra=request_headers("If-None-Match"),
    responses={
        200: {"content": {_XML: {"schema": {"type": "string"}}}, **answer_headers(*_OF_A_PICTURE)},
        304: unchanged(*_OF_A_PICTURE),
        **may_raise(*OF_EVERY_RECORD, *_READING),
    },
)
async def describe_tiles(
    record: RecordWithPixels,
    request: Request,
    slides: OpenSlidesDep,
    drain: DrainDep,
) -> Response:
    """What a DeepZoom viewer has to know of the slide; `Url` is where its tiles are."""
    headers = _headers(f"{record.id}-dzi", _FOR_THIS_KEY)
    if has_version(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    size = await unless_disconnected(request, slides.size(record), drain.cut)
    if size is None:
        return Response(status_code=CLIENT_CLOSED)
    return Response(_dzi(record.id, *size), media_type=_XML, headers=headers)


@router.get(
    "/{slide_id}/tiles/{level}/{column}_{row}.jpg",
    response_class=Response,
    response_description="The tile.",
    openapi_extra=request_headers("If-None-Match"),
    responses={
        200: {"content": {_JPEG: _BINARY}, **answer_headers(*_OF_A_PICTURE)},
        304: unchanged(*_OF_A_PICTURE),
        **may_raise(*OF_EVERY_RECORD, *_READING),
    },
)
async def get_tile(
    record: RecordWithPixels,
    address: TileAddress,
    request: Request,
    slides: OpenSlidesDep,
    drain: DrainDep,
    metrics: MetricsDep,
) -> Response:
    """A DeepZoom tile of the slide: 256 px a side without overlap, cut at the right and lower edge, white where nothing
    was scanned. A tile that its client no longer waits for is not read; the newest is read first."""
    headers = _headers(f"{record.id}-{'-'.join(str(number) for number in address)}", _FOR_THIS_KEY)
    if has_version(request, headers["ETag"]):
        metrics.view_tiles.labels("unchanged").inc()
        return Response(status_code=304, headers=headers)
    begun = time.perf_counter()
    try:
        tile = await unless_disconnected(request, slides.tile(record, *address), drain.cut)
    except EyepieceError as error:
        metrics.view_tiles.labels("refused" if isinstance(error, Overloaded) else "failed").inc()
        raise
    metrics.view_tiles.labels("dropped" if tile is None else "sent").inc()
    if tile is None:
        return Response(status_code=CLIENT_CLOSED)
    metrics.view_tile_s.observe(time.perf_counter() - begun)
    return Response(tile, media_type=_JPEG, headers=headers)


def _headers(version: str, vary: str) -> dict[str, str]:
    return {"Cache-Control": _KEPT_BY_BROWSERS, "ETag": f'"{version}-{_EDITION}"', "Vary": vary}


def _dzi(slide_id: str, width: int, height: int) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Url="{router.prefix}/{slide_id}/tiles/" '
        f'TileSize="{TILE_PX}" Overlap="0" Format="jpg"><Size Width="{width}" Height="{height}"/></Image>\n'
    )


def accepted_form(accept: str) -> PictureForm:
    """PNG where the client would rather have it than JPEG; what it says of other types does not count."""
    wanted: dict[str, float] = {}
    for said in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in said.split(";"))
        qualities = [match[1] for part in parameters if (match := _QUALITY.fullmatch(part))]
        wanted[media_type] = float(qualities[0]) if qualities else 1.0

    def quality(media_type: str) -> float:
        return wanted.get(media_type, wanted.get("image/*", wanted.get("*/*", 0.0)))

    return "png" if quality(_MEDIA_TYPES["png"]) > quality(_JPEG) else "jpeg"
