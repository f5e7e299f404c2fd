"""/v1/slides: upload, encode again, follow, delete, and what can be downloaded of a slide."""

from contextlib import AsyncExitStack
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from encoders.errors import SlideTooLarge, UnreadableSlide, UnsupportedFormat, UnusableFeatures
from server.api.access import Tenant
from server.api.audited import note_slide
from server.api.contract.errors import OF_EVERY_KEY, OF_EVERY_RECORD, may_raise
from server.api.contract.events import stream_of
from server.api.contract.headers import answer_headers, request_headers, unchanged
from server.api.contract.parameters import SlideId
from server.api.contract.slide_metadata import SearchedMetadata
from server.api.contract.upload_form import takes_form
from server.api.dependencies import (
    AttachFeaturesDep,
    CatalogueDep,
    DeleteSlideDep,
    DownloadSlotsDep,
    DrainDep,
    EmbeddingsDep,
    EncodeAgainDep,
    FollowerSlotsDep,
    FollowSlideDep,
    ListSlidesDep,
    MetricsDep,
    ModelsDep,
    PrepareSlideDep,
    QueueEncodeDep,
    SlideStatesDep,
    StoreDep,
    UploadSlotsDep,
)
from server.api.downloads import PIECE_BYTES, Download, asked_span, has_version, slot_of
from server.api.idempotency import REPLAYED
from server.api.request_bodies import announced_bytes
from server.api.routes.keyed_route import KeyedRoute, done_once, needs
from server.api.stream import errors_as_events, sse_response
from server.errors import (
    BodyTooSlow,
    InvalidRequest,
    NotFound,
    Overloaded,
    QuotaExceeded,
    RangeNotSatisfiable,
    StorageFull,
    UploadTooLarge,
)
from server.flow.encode_again import EncodeOptions
from server.flow.list_slides import PREFIX_PATTERN
from server.slides.progress import valid_event_id
from server.slides.public_slide import Slide, Status
from server.slides.slide_index import ENTRY_PATTERN
from server.slides.slide_record import Priority, SlideRecord, SlideTileBudget

router = APIRouter(prefix="/v1/slides", tags=["slides"], route_class=KeyedRoute)
_ACCEPTED = {"Retry-After": "5"}
_HDF5 = "application/x-hdf5"
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_UNCHANGED = unchanged("ETag")
_ACCEPTED_SLIDE = {
    "description": "Queued for encoding; follow its events.",
    **answer_headers("Location", "Retry-After"),
}
_ENCODING_SLIDE = _ACCEPTED_SLIDE | answer_headers("Location", "Retry-After", REPLAYED)
_KNOWN_SLIDE = {"model": Slide, **answer_headers("Location")}
# What a parser says of a slide while it is looked at.
_UNREADABLE = (UnsupportedFormat, UnreadableSlide, SlideTooLarge)
_OF_A_FILE = ("ETag", "Accept-Ranges", "Content-Disposition")
_RECEIVING = (UploadTooLarge, BodyTooSlow, QuotaExceeded, Overloaded, StorageFull, NotFound, *OF_EVERY_RECORD)


class SlidePage(BaseModel):
    """Some of the tenant's slides, newest first."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    object: Literal["list"] = "list"
    data: list[Slide]
    next_cursor: str | None = Field(
        description="`cursor` of the next page, null at the end. A page may have fewer slides than `limit`, with "
        "`status` or `name` even none, and still be followed by others."
    )
    complete: bool = Field(
        description="False while slides may be missing: those of an older release, or of `queued` those that another "
        "model has encoded, are still being gone through."
    )


class EncodeRequest(BaseModel):
    """How to encode a slide (again)."""

    model_config = ConfigDict(extra="forbid")

    encoder: str | None = Field(
        None,
        description="Model to encode for: its `id` in `GET /v1/models`, or its encoder id for this slide. Defaults to "
        "the first model.",
        examples=["demo"],
    )
    mpp: float | None = Field(
        None,
        ge=0.05,
        le=4.0,
        allow_inf_nan=False,
        description="Resolution of level 0 in µm per pixel, for slides whose file does not state it, or states it "
        "wrongly.",
        examples=[0.25],
    )
    priority: Priority = Field("routine", description="`urgent` jobs run before all `routine` ones.")
    source: Literal["pixels"] | None = Field(
        None, description="`pixels`: encode the slide itself instead of the features attached to it."
    )
    tile_budget: SlideTileBudget | Literal["all"] | None = Field(
        None,
        description="Encode no more tiles than this, for all models: to see what a slide seen in part costs and loses. "
        "It stays until `all`, and is part of the encoder id.",
    )

    def as_options(self) -> EncodeOptions:
        """The request without its transport."""
        budget = self.tile_budget
        return EncodeOptions(
            self.encoder,
            self.mpp,
            self.priority,
            from_pixels=self.source == "pixels",
            tile_budget=None if budget == "all" else budget,
            all_tiles=budget == "all",
        )


async def _record_of_model(
    slide_id: SlideId,
    tenant: Tenant,
    catalogue: CatalogueDep,
    models: ModelsDep,
    model: Annotated[
        str | None,
        Query(
            max_length=64,
            description="A model's `id` in `GET /v1/models`. Defaults to the first model.",
            examples=["demo"],
        ),
    ] = None,
) -> SlideRecord:
    """The slide as the model sees it that the request names."""
    return await catalogue.require(tenant, slide_id, models.named(model).name)


RecordOfModel = Annotated[SlideRecord, Depends(_record_of_model)]


@router.post(
    "",
    dependencies=needs("slides:write", "upload_bytes"),
    status_code=202,
    response_model=Slide,
    openapi_extra=takes_form("SlideUpload"),
    responses={
        200: _KNOWN_SLIDE
        | {"description": "The tenant has this content already. What the form says of the slide holds from now on."},
        202: _ACCEPTED_SLIDE,
        **may_raise(*_UNREADABLE, *_RECEIVING),
    },
)
async def upload_slide(
    request: Request, tenant: Tenant, story: PrepareSlideDep, slots: UploadSlotsDep, metrics: MetricsDep
) -> Response:
    """Upload one slide as multipart/form-data with the field `file`; repeat the field for a slide of several files
    (a DICOM series, MIRAX), whose names are then paths within the slide.

    A file of precomputed features, recognised by its content, becomes a slide without pixels (vendor `features`):
    HDF5 with `features` and `coords` as TRIDENT, CLAM and GET /v1/slides/{id}/features write it, or a .pt of tensors:
    slide features, or a dictionary of `tile_embeds` and `coords`."""
    with slots.one(tenant):
        content_type = request.headers.get("content-type", "")
        try:
            prepared = await story.prepare(tenant, request.stream(), content_type, announced_bytes(request))
        except Exception:
            metrics.uploads.labels("refused").inc()
            raise
    metrics.uploads.labels("created" if prepared.created else "known").inc()
    note_slide(request, prepared.slide.id)
    return _slide_response(prepared.slide, 202 if prepared.created else 200)


@router.get("")
async def list_slides(  # noqa: PLR0913 - one for each parameter
    tenant: Tenant,
    story: ListSlidesDep,
    about: SearchedMetadata,
    cursor: Annotated[
        str,
        Query(
            max_length=78,
            description="`next_cursor` of the previous page.",
            examples=[f"1764382320123-{'5e' * 32}"],
            json_schema_extra={"pattern": f"^({ENTRY_PATTERN.pattern})?$"},
        ),
    ] = "",
    limit: Annotated[int, Query(ge=1, le=100, description="Maximum number of slides in a page.", examples=[50])] = 20,
    status: Annotated[Status | None, Query(description="Only slides with this status.", examples=["ready"])] = None,
    name: Annotated[
        str,
        Query(
            max_length=255,
            description="Only slides whose file name contains this text; case is ignored.",
            examples=["biopsy"],
        ),
    ] = "",
    beginning: Annotated[
        str | None,
        Query(
            alias="id",
            max_length=64,
            description="Only slides whose id begins so, at least 6 digits of it; all of them, or an error when there "
            "are more than `limit`. Not together with a cursor, status or name.",
            examples=["5e5e5e5e"],
            json_schema_extra={"pattern": f"^{PREFIX_PATTERN.pattern}$"},
        ),
    ] = None,
) -> SlidePage:
    """The tenant's slides, newest first, page by page; or those whose `id` begins as is said, as a rule one."""
    if beginning is not None:
        if cursor or status is not None or name or any(about.values):
            raise InvalidRequest("`id` goes with `limit` alone; leave the other parameters out.")
        page = await story.beginning(tenant, beginning, limit)
        return SlidePage(data=page.slides, next_cursor=None, complete=True)
    if any(about.values):
        if name:
            raise InvalidRequest("`name` does not go with what is said of slides; leave one of them out.")
        page = await story.described(tenant, about, cursor=cursor, limit=limit, status=status)
    else:
        page = await story.page(tenant, cursor=cursor, limit=limit, status=status, name=name)
    return SlidePage(data=page.slides, next_cursor=page.next_cursor, complete=page.complete)


@router.get("/{slide_id}", responses=may_raise(NotFound))
async def get_slide(slide_id: SlideId, tenant: Tenant, catalogue: CatalogueDep, states: SlideStatesDep) -> Slide:
    """One slide."""
    return await states.show(await catalogue.require_readable_or_not(tenant, slide_id))


@router.delete("/{slide_id}", status_code=204, response_description="Deleted.", responses=may_raise(NotFound))
async def delete_slide(slide_id: SlideId, tenant: Tenant, catalogue: CatalogueDep, story: DeleteSlideDep) -> None:
    """Remove the slide's source, features, embeddings, cache entries and conversations; stop its encode."""
    await story.delete(await catalogue.require_readable_or_not(tenant, slide_id))


@router.post(
    "/{slide_id}/encode",
    dependencies=[*needs("slides:write"), *done_once()],
    status_code=202,
    response_model=Slide,
    openapi_extra=request_headers("Idempotency-Key"),
    responses={202: _ENCODING_SLIDE, **may_raise(NotFound, *OF_EVERY_RECORD, QuotaExceeded, *OF_EVERY_KEY)},
)
async def encode_slide(
    slide_id: SlideId,
    asked: EncodeRequest,
    tenant: Tenant,
    story: EncodeAgainDep,
) -> Response:
    """Encode the slide (again), e.g. with `mpp` for a slide that does not say its resolution, or for another model."""
    return _slide_response(await story.encode(tenant, slide_id, asked.as_options()), 202)


@router.get(
    "/{slide_id}/events",
    response_class=StreamingResponse,
    response_description="Events until the slide is ready or has failed.",
    responses={200: {"content": stream_of("SlideEvent")}, **may_raise(NotFound, *OF_EVERY_RECORD, Overloaded)},
)
async def follow_slide(
    record: RecordOfModel,
    tenant: Tenant,
    story: FollowSlideDep,
    slots: FollowerSlotsDep,
    drain: DrainDep,
    last_event_id: Annotated[
        str | None,
        Header(
            alias="Last-Event-ID",
            description="`id` of the last event received; any other value starts with the oldest event.",
            examples=["1764382320123-0"],
        ),
    ] = None,
) -> StreamingResponse:
    """Follow a slide's encoding as server-sent events: `progress {stage, done, total}` …, then `ready` or
    `failed {code, detail}`. Resumes with `Last-Event-ID`."""
    await story.require_begun(record)
    resources = AsyncExitStack()
    resources.enter_context(slots.one(tenant))
    events = errors_as_events(story.events(record, valid_event_id(last_event_id)))
    return sse_response(events, drain.cut, resources)


@router.head(
    "/{slide_id}/features",
    name="head_features",
    response_class=Response,
    response_description="What GET would send.",
    openapi_extra=request_headers("If-None-Match"),
    responses={
        200: {"content": {_HDF5: _BINARY}, **answer_headers(*_OF_A_FILE)},
        304: _UNCHANGED,
        **may_raise(NotFound, *OF_EVERY_RECORD),
    },
)
@router.get(
    "/{slide_id}/features",
    response_class=StreamingResponse,
    response_description="The file.",
    openapi_extra=request_headers("If-None-Match", "Range", "If-Range"),
    responses={
        200: {"content": {_HDF5: _BINARY}, **answer_headers(*_OF_A_FILE)},
        206: {
            "content": {_HDF5: _BINARY},
            "description": "The bytes of `Range`.",
            **answer_headers(*_OF_A_FILE, "Content-Range"),
        },
        304: _UNCHANGED,
        **may_raise(NotFound, *OF_EVERY_RECORD, RangeNotSatisfiable, Overloaded),
    },
)
async def get_features(
    record: RecordOfModel,
    request: Request,
    tenant: Tenant,
    store: StoreDep,
    embeddings: EmbeddingsDep,
    slots: DownloadSlotsDep,
) -> Response:
    """The HDF5 file of tile features and level-0 coordinates, as TRIDENT and CLAM read it; of a model of levels, the
    file of its levels."""
    key = record.paths.features(record.encoder_id)
    stored = await store.describe(key)
    if stored is None:
        if await embeddings.exists(record):
            raise NotFound("This slide was given as slide features; it has no tile features.")
        raise NotFound("This slide has no features yet; follow its events until it is ready.")
    etag = f'"{stored.version}"'
    headers = {"Cache-Control": "private, no-cache", "ETag": etag, "Accept-Ranges": "bytes"}
    if has_version(request, etag):
        return Response(status_code=304, headers=headers)
    headers["Content-Disposition"] = f'attachment; filename="{record.id}.h5"'
    if request.method == "HEAD":
        return Response(media_type=_HDF5, headers=headers | {"Content-Length": str(stored.size_bytes)})
    span = asked_span(request, etag, stored.size_bytes)
    begin, end = span or (0, stored.size_bytes)
    headers["Content-Length"] = str(end - begin)
    if span:
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{stored.size_bytes}"
    content = store.stream(key, PIECE_BYTES, span)
    status = 206 if span else 200
    return Download(content, slot_of(slots, tenant), media_type=_HDF5, headers=headers, status_code=status)


@router.put(
    "/{slide_id}/features",
    dependencies=needs("slides:write", "upload_bytes"),
    response_model=Slide,
    response_description="The slide is ready with these features.",
    openapi_extra=takes_form("FeaturesUpload"),
    responses={
        200: answer_headers("Location"),
        202: {"model": Slide, **_ACCEPTED_SLIDE},
        **may_raise(*_UNREADABLE, UnusableFeatures, *_RECEIVING),
    },
)
async def attach_features(
    slide_id: SlideId,
    request: Request,
    tenant: Tenant,
    catalogue: CatalogueDep,
    story: AttachFeaturesDep,
    encodes: QueueEncodeDep,
    slots: UploadSlotsDep,
) -> Response:
    """Attach precomputed features, as POST /v1/slides takes them, to a slide: it is encoded from them instead of its
    pixels, under an encoder id of its own. 200 when that is done already. `source: "pixels"` of POST
    /v1/slides/{id}/encode goes back."""
    record = await catalogue.require(tenant, slide_id)
    with slots.one(tenant):
        content_type = request.headers.get("content-type", "")
        changed = await story.attach(record, request.stream(), content_type, announced_bytes(request))
    slide = await encodes.encode_again(record, changed)
    return _slide_response(slide, 200 if slide.status == "ready" else 202)


def is_upload(method: str, path: str) -> bool:
    """Whether a request's body is an upload, which has limits of its own."""
    if method == "POST":
        return path == router.prefix
    return method == "PUT" and path.startswith(f"{router.prefix}/") and path.endswith("/features")


def _slide_response(slide: Slide, status: int) -> JSONResponse:
    headers = {"Location": f"/v1/slides/{slide.id}"}
    return JSONResponse(slide.model_dump(mode="json"), status, headers | (_ACCEPTED if status == 202 else {}))
