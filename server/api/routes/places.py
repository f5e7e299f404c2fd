"""/v1/slides/{id}/places: where the tiles lie that a model was given, without their features."""

import asyncio
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from encoders.errors import RegionsUnavailable
from server.api.access import Tenant
from server.api.contract.errors import OF_EVERY_RECORD, may_raise
from server.api.contract.headers import answer_headers, request_headers, unchanged
from server.api.dependencies import DownloadSlotsDep, EmbeddingsDep, ModelsDep, TilePlacesDep
from server.api.downloads import Download, has_version, in_pieces, slot_of
from server.api.routes.keyed_route import KeyedRoute
from server.api.routes.slides import RecordOfModel
from server.errors import NotFound, Overloaded

router = APIRouter(prefix="/v1/slides", tags=["slides"], route_class=KeyedRoute)
_JSON = "application/json"
_CONTENT: Any = {_JSON: {"schema": {"$ref": "#/components/schemas/SlidePlaces"}}}
# Of what this release writes: part of the ETag.
_WRITTEN_AS = 1


@router.get(
    "/{slide_id}/places",
    response_class=StreamingResponse,
    response_description="The places.",
    openapi_extra=request_headers("If-None-Match"),
    responses={
        200: {"content": _CONTENT, **answer_headers("ETag")},
        304: unchanged("ETag"),
        **may_raise(NotFound, *OF_EVERY_RECORD, RegionsUnavailable, Overloaded),
    },
)
async def get_places(
    record: RecordOfModel,
    request: Request,
    tenant: Tenant,
    embeddings: EmbeddingsDep,
    models: ModelsDep,
    tile_places: TilePlacesDep,
    slots: DownloadSlotsDep,
) -> Response:
    """Where the tiles lie that the model was given, in level-0 pixels: for an overlay on the slide, and to count the
    tiles of a region while it is drawn (a tile belongs to it when its centre lies inside)."""
    if not await embeddings.exists(record):
        raise NotFound("This slide has no tiles yet; follow its events until it is ready.")
    etag = f'"{record.generation}-{record.encoder_id}-{_WRITTEN_AS}"'
    headers = {"Cache-Control": "private, no-cache", "ETag": etag}
    if has_version(request, etag):
        return Response(status_code=304, headers=headers)
    held = slot_of(slots, tenant)
    try:
        places = await tile_places.find(record)
        shown = {
            "object": "slide.places",
            "slide_id": record.id,
            "model": models.named(record.model or None).name,
            "encoder_id": record.encoder_id,
            "side_px": places.side_px,
            "least": places.least,
            "count": len(places.coords),
            "coords": places.coords,
        }
        content = await asyncio.to_thread(orjson.dumps, shown, None, orjson.OPT_SERIALIZE_NUMPY)
    except BaseException:
        await held.aclose()
        raise
    return Download(in_pieces(content), held, media_type=_JSON, headers=headers)
