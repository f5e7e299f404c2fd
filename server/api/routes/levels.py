"""/v1/slides/{id}/levels: what a model was given of a slide, as JSON and as GeoJSON for QuPath."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from server.api.access import Tenant
from server.api.contract.errors import OF_EVERY_RECORD, may_raise
from server.api.contract.headers import answer_headers, request_headers
from server.api.dependencies import DownloadSlotsDep, ShowLevelsDep
from server.api.downloads import Download, has_version, in_small_pieces, slot_of
from server.api.routes.keyed_route import KeyedRoute
from server.api.routes.slides import RecordOfModel
from server.errors import NoLevels, NotFound, Overloaded, SlideFailed, SlideNotReady
from server.flow.show_levels import LevelsFormat

router = APIRouter(prefix="/v1/slides", tags=["slides"], route_class=KeyedRoute)
_MEDIA_TYPES: dict[LevelsFormat, str] = {"json": "application/json", "geojson": "application/geo+json"}
_SHAPES = {"json": "SlideLevels", "geojson": "LevelsGeoJson"}
_CONTENT: Any = {
    media_type: {"schema": {"$ref": f"#/components/schemas/{_SHAPES[kind]}"}}
    for kind, media_type in _MEDIA_TYPES.items()
}
# Of what this release writes from a file of levels: part of the ETag.
_WRITTEN_AS = 1
_UNCHANGED: Any = {"description": "The client has this version (`If-None-Match`).", **answer_headers("ETag")}
_ERRORS = (NotFound, NoLevels, SlideNotReady, SlideFailed, *OF_EVERY_RECORD)


@router.head(
    "/{slide_id}/levels",
    name="head_levels",
    response_class=Response,
    response_description="What GET would send, without its size.",
    openapi_extra=request_headers("If-None-Match"),
    responses={200: {"content": _CONTENT, **answer_headers("ETag")}, 304: _UNCHANGED, **may_raise(*_ERRORS)},
)
@router.get(
    "/{slide_id}/levels",
    response_class=StreamingResponse,
    response_description="The levels, in the form that was asked for.",
    openapi_extra=request_headers("If-None-Match"),
    responses={
        200: {"content": _CONTENT, **answer_headers("ETag")},
        304: _UNCHANGED,
        **may_raise(*_ERRORS, Overloaded),
    },
)
async def get_levels(
    record: RecordOfModel,
    request: Request,
    tenant: Tenant,
    story: ShowLevelsDep,
    slots: DownloadSlotsDep,
    region: Annotated[
        int | None,
        Query(
            ge=0,
            le=2**31 - 1,
            description="Only this region, by its `index`, and of its patches the cells too.",
            examples=[3],
        ),
    ] = None,
    form: Annotated[
        LevelsFormat | None,
        Query(
            alias="format",
            description="`json`, or `geojson` for QuPath. Without it `Accept: application/geo+json` asks for the "
            "latter, anything else for the former.",
            examples=["geojson"],
        ),
    ] = None,
) -> Response:
    """What the model was given of the slide: regions, the patches that were chosen of each in rank order, and the cells
    found in those. It does not say why the model answered as it did.

    Numbers of cells come always, cells themselves in JSON of one `region`, and in GeoJSON. Only models that look at
    levels have them; others answer `no_levels`, with the names of those that do. HEAD does not open the file, so it
    does not know how many regions there are."""
    story.require_levels(record)
    kind = form or ("geojson" if _accepts_geojson(request) else "json")
    etag = f'"{await story.version(record)}-{_WRITTEN_AS}-{kind}{"" if region is None else f"-{region}"}"'
    headers = {"Cache-Control": "private, no-cache", "ETag": etag, "Vary": "Accept"}
    if has_version(request, etag):
        return Response(status_code=304, headers=headers)
    if kind == "geojson":
        headers["Content-Disposition"] = f'attachment; filename="{record.id}.geojson"'
    if request.method == "HEAD":
        head = Response(media_type=_MEDIA_TYPES[kind], headers=headers)
        del head.headers["Content-Length"]
        return head
    held = slot_of(slots, tenant)
    try:
        content = await story.open(record, region, kind, held)
    except BaseException:
        await held.aclose()
        raise
    return Download(in_small_pieces(content), held, media_type=_MEDIA_TYPES[kind], headers=headers)


def _accepts_geojson(request: Request) -> bool:
    """Whether the client prefers it: named, not refused, and not behind plain JSON."""
    quality = {"application/json": 0.0, "application/geo+json": 0.0}
    for accepted in request.headers.get("accept", "").split(","):
        media_type, *parameters = (part.strip().lower() for part in accepted.split(";"))
        if media_type in quality:
            said = [part.removeprefix("q=") for part in parameters if part.startswith("q=")]
            quality[media_type] = _number(said[0]) if said else 1.0
    return quality["application/geo+json"] > quality["application/json"]


def _number(text: str) -> float:
    """A quality value, 0 to 1; 0 for anything else."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 <= value <= 1 else 0.0
