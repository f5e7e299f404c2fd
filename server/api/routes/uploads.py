"""/v1/uploads: slides that come in pieces, by tus 1.0 (core, creation, creation with upload, checksum, expiration,
termination)."""

from collections.abc import AsyncIterator
from email.utils import format_datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from encoders.errors import SlideTooLarge, UnreadableSlide, UnsupportedFormat
from server.api.access import Tenant
from server.api.audited import note_slide
from server.api.contract.errors import OF_EVERY_RECORD, may_raise
from server.api.contract.headers import answer_headers, request_headers
from server.api.dependencies import MetricsDep, ReceiveUploadDep, UploadSlotsDep
from server.api.routes.keyed_route import KeyedRoute, needs
from server.api.tus_headers import (
    BODY_TYPE,
    TUS_EXTENSIONS,
    TUS_VERSION,
    UPLOADS_PATH,
    checksum,
    number,
    require_body_type,
    require_tus,
    upload_length,
    upload_metadata,
)
from server.errors import (
    BodyTooSlow,
    ChecksumMismatch,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    QuotaExceeded,
    StorageFull,
    UnknownChecksum,
    UnknownTusVersion,
    UploadGone,
    UploadIncomplete,
    UploadLocked,
    UploadTooLarge,
    UploadTooLong,
    WrongContentType,
    WrongOffset,
)
from server.flow.receive_upload import ReceiveUpload, UploadPart, UploadState
from server.slides.public_slide import Slide
from server.slides.slide_record import SlideError
from server.uploads.resumable.append_bytes import CHECKSUM_ALGORITHMS
from server.uploads.resumable.upload_record import UploadRecord

router = APIRouter(prefix=UPLOADS_PATH, tags=["uploads"], route_class=KeyedRoute)
UploadId = Annotated[
    str,
    Path(
        description="The upload's id: the last part of the `Location` that its creation answered.",
        examples=["7a" * 32],
        json_schema_extra={"pattern": "^[0-9a-f]{64}$"},
    ),
]
_SENDS = needs("slides:write", "upload_bytes")
_SLIDE_ID = "Eyepiece-Slide-Id"
_OF_AN_OFFSET = ("Tus-Resumable", "Upload-Offset", "Upload-Expires", _SLIDE_ID)
_NO_SLIDE = (UnsupportedFormat, UnreadableSlide, SlideTooLarge)
_TUS = (UnknownTusVersion,)
_ADMITTED = (QuotaExceeded, Overloaded, StorageFull)
_RECEIVING = (
    *(NotFound, UploadGone, UploadLocked, WrongOffset, UploadTooLong, WrongContentType),
    *(ChecksumMismatch, UnknownChecksum, BodyTooSlow, *_ADMITTED, *_NO_SLIDE, *OF_EVERY_RECORD),
)
_BYTES: dict[str, Any] = {"content": {BODY_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
_PART_HEADERS = ("Tus-Resumable", "Upload-Offset", "Upload-Checksum")


class Upload(BaseModel):
    """A file that is uploaded in pieces."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    id: str = Field(description="Names the upload in addresses.", examples=["7a" * 32])
    object: Literal["upload"] = "upload"
    status: Literal["receiving", "received", "finished", "refused"] = Field(
        description="`received`: all bytes are there, and the slide is made when its other files are there too."
    )
    offset_bytes: int = Field(description="How many bytes have come.", examples=[1048576])
    length_bytes: int = Field(description="How many there are to be.", examples=[2147483648])
    path: str = Field(description="Path or name of the file in its slide, as the client gave it.")
    slide: str | None = Field(description="The client's name for the slide that this file is a part of.")
    slide_id: str | None = Field(description="The slide that it became.")
    error: SlideError | None = Field(description="Why what was uploaded is no slide.")
    created_at: str = Field(examples=["2026-11-29T17:00:00Z"], json_schema_extra={"format": "date-time"})
    expires_at: str = Field(
        description="When the upload is removed if nothing more comes.",
        examples=["2026-11-30T17:00:00Z"],
        json_schema_extra={"format": "date-time"},
    )


class SlideOfUploads(BaseModel):
    """Which uploads are one slide."""

    model_config = ConfigDict(extra="forbid")

    slide: str = Field(
        min_length=1,
        max_length=255,
        description="What the metadata of all its uploads say as `slide`: any text of the client's own.",
        examples=["case-17-block-a"],
    )
    files: int | None = Field(
        None, ge=1, description="How many files the slide has: others are refused as incomplete.", examples=[12]
    )


@router.options(
    "",
    status_code=204,
    response_description="What the server supports.",
    responses={
        204: answer_headers("Tus-Resumable", "Tus-Version", "Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm")
    },
)
async def describe_uploads(tenant: Tenant, story: ReceiveUploadDep) -> Response:
    """What of tus is supported, and the largest file that is taken."""
    headers = {
        "Tus-Version": TUS_VERSION,
        "Tus-Extension": TUS_EXTENSIONS,
        "Tus-Max-Size": str(story.admission.max_upload_bytes),
        "Tus-Checksum-Algorithm": ",".join(CHECKSUM_ALGORITHMS),
    }
    return Response(status_code=204, headers=headers)


@router.post(
    "",
    dependencies=_SENDS,
    status_code=201,
    response_class=Response,
    response_description="The upload can begin at `Location`.",
    openapi_extra=request_headers("Tus-Resumable", "Upload-Length", "Upload-Metadata", "Upload-Checksum")
    | {"requestBody": {"required": False, **_BYTES}},
    responses={
        201: answer_headers("Location", *_OF_AN_OFFSET),
        **may_raise(*_TUS, UploadTooLarge, *_RECEIVING),
    },
)
async def create_upload(
    request: Request, tenant: Tenant, story: ReceiveUploadDep, slots: UploadSlotsDep, metrics: MetricsDep
) -> Response:
    """Begin an upload of `Upload-Length` bytes; the body, if any, are its first.

    `Upload-Metadata` may say `filename`, and of the slide `accession`, `case`, `patient_ref`, `stain`, `body_site` and
    `labels` (with commas). The files of a slide of several (a DICOM series, MIRAX) say `slide`, a text of
    the client's own that they share, and `path` within the slide; POST /v1/uploads/slides makes the slide of them.
    What begins and is not gone on with is removed after a day (`Upload-Expires`)."""
    require_tus(request)
    length = upload_length(request)
    raw = request.headers.get("upload-metadata", "").encode("latin-1", errors="replace").decode("ascii", "replace")
    metadata = upload_metadata(raw)
    checksum(request)  # one that cannot be read is refused also where there is nothing yet that it could be of
    if not _has_body(request):
        state = UploadState(await story.create(tenant, length, metadata, raw), 0)
        return Response(status_code=201, headers=_offset_headers(state) | _location(state.upload))
    require_body_type(request)
    with slots.one(tenant):
        upload = await story.create(tenant, length, metadata, raw)
        try:
            state = await _appended(request, tenant, story, upload.id, 0, metrics)
        except (ChecksumMismatch, UploadTooLong, UnknownChecksum, StorageFull):
            await story.terminate(tenant, upload.id)  # its client does not know where it is
            raise
    return Response(status_code=201, headers=_offset_headers(state) | _location(upload))


@router.post(
    "/slides",
    status_code=202,
    response_model=Slide,
    responses={
        200: {
            "model": Slide,
            "description": "The tenant has this content already. What the uploads say of the slide holds from now on.",
            **answer_headers("Location"),
        },
        202: {
            "description": "The slide is kept; its encode is queued.",
            **answer_headers("Location", "Retry-After"),
        },
        **may_raise(NotFound, UploadGone, UploadLocked, UploadIncomplete, *_ADMITTED, *_NO_SLIDE, *OF_EVERY_RECORD),
    },
)
async def finish_slide(
    request: Request, asked: SlideOfUploads, tenant: Tenant, story: ReceiveUploadDep, metrics: MetricsDep
) -> Response:
    """Make one slide of all uploads whose metadata name it. Asked again, it answers with the same slide."""
    try:
        prepared = await story.finish(tenant, asked.slide, asked.files)
    except Exception:
        metrics.uploads.labels("refused").inc()
        raise
    note_slide(request, prepared.slide.id)
    headers = {"Location": f"/v1/slides/{prepared.slide.id}"}
    if prepared.created:
        headers["Retry-After"] = "5"
    return JSONResponse(prepared.slide.model_dump(mode="json"), 202 if prepared.created else 200, headers)


@router.head(
    "/{upload_id}",
    dependencies=needs("slides:write"),  # who uploads goes on; and it makes the slide that is not made yet
    response_class=Response,
    response_description="How far the upload has come.",
    openapi_extra=request_headers("Tus-Resumable"),
    responses={
        200: {"content": {}, **answer_headers(*_OF_AN_OFFSET, "Upload-Length", "Upload-Metadata")},
        **may_raise(*_TUS, NotFound, UploadGone, UploadLocked, *_ADMITTED, *_NO_SLIDE, *OF_EVERY_RECORD),
    },
)
async def resume_upload(request: Request, upload_id: UploadId, tenant: Tenant, story: ReceiveUploadDep) -> Response:
    """How many bytes have come (`Upload-Offset`): go on from there. An upload that is a whole slide by itself and has
    all its bytes has the slide's id, too."""
    require_tus(request)
    state = await story.state(tenant, upload_id)
    note_slide(request, _slide_of(state))
    headers = _offset_headers(state) | {"Upload-Length": str(state.upload.length_bytes)}
    if state.upload.metadata:
        headers["Upload-Metadata"] = state.upload.metadata
    return Response(status_code=200, headers=headers)


@router.get("/{upload_id}", responses=may_raise(NotFound))
async def get_upload(upload_id: UploadId, tenant: Tenant, story: ReceiveUploadDep) -> Upload:
    """How an upload stands, as JSON; it can be asked for while bytes come."""
    return _public(await story.look(tenant, upload_id))


@router.patch(
    "/{upload_id}",
    dependencies=_SENDS,
    status_code=204,
    response_class=Response,
    response_description="The bytes are kept.",
    openapi_extra=request_headers(*_PART_HEADERS) | {"requestBody": {"required": True, **_BYTES}},
    responses={204: answer_headers(*_OF_AN_OFFSET), **may_raise(*_TUS, *_RECEIVING)},
)
async def append_to_upload(
    request: Request,
    upload_id: UploadId,
    tenant: Tenant,
    story: ReceiveUploadDep,
    slots: UploadSlotsDep,
    metrics: MetricsDep,
) -> Response:
    """Send the bytes from `Upload-Offset` on, all of them or some. With the last ones the slide is made; the answer has
    its id in `Eyepiece-Slide-Id`. What was sent of a request that breaks off is kept, unless it had a checksum; a
    request that is refused leaves the upload as it was. When all bytes are there and are no slide, the answer says
    why, and the upload is gone."""
    require_tus(request)
    require_body_type(request)
    with slots.one(tenant):
        state = await _appended(request, tenant, story, upload_id, number(request, "Upload-Offset"), metrics)
    return Response(status_code=204, headers=_offset_headers(state))


@router.delete(
    "/{upload_id}",
    status_code=204,
    response_class=Response,
    response_description="The upload is gone.",
    openapi_extra=request_headers("Tus-Resumable"),
    responses={204: answer_headers("Tus-Resumable"), **may_raise(*_TUS, NotFound, UploadLocked)},
)
async def delete_upload(request: Request, upload_id: UploadId, tenant: Tenant, story: ReceiveUploadDep) -> Response:
    """Give an upload up. A slide that was made of it stays."""
    require_tus(request)
    await story.terminate(tenant, upload_id)
    return Response(status_code=204)


@router.post(
    "/{upload_id}",
    dependencies=_SENDS,
    status_code=204,
    response_class=Response,
    response_description="As the method named would answer.",
    openapi_extra=request_headers("X-HTTP-Method-Override", *_PART_HEADERS)
    | {"requestBody": {"required": False, **_BYTES}},
    responses={204: answer_headers(*_OF_AN_OFFSET), **may_raise(*_TUS, MethodNotAllowed, *_RECEIVING)},
)
async def override_method(
    request: Request,
    upload_id: UploadId,
    tenant: Tenant,
    story: ReceiveUploadDep,
    slots: UploadSlotsDep,
    metrics: MetricsDep,
) -> Response:
    """PATCH or DELETE for clients that can send neither: `X-HTTP-Method-Override` names which."""
    method = request.headers.get("x-http-method-override", "").upper()
    if method == "PATCH":
        return await append_to_upload(request, upload_id, tenant, story, slots, metrics)
    if method == "DELETE":
        return await delete_upload(request, upload_id, tenant, story)
    raise MethodNotAllowed("Send PATCH or DELETE, or one of them as X-HTTP-Method-Override.")


def is_upload(method: str, path: str) -> bool:
    """Whether a request's body is bytes of an upload, which has limits of its own."""
    if method == "POST" and path == f"{UPLOADS_PATH}/slides":
        return False
    return method in ("POST", "PATCH") and (path == UPLOADS_PATH or path.startswith(f"{UPLOADS_PATH}/"))


async def _appended(
    request: Request, tenant: str, story: ReceiveUpload, upload_id: str, offset: int, metrics: MetricsDep
) -> UploadState:
    announced = number(request, "Content-Length") if "content-length" in request.headers else 0
    body: AsyncIterator[bytes] = request.stream()
    try:
        state = await story.append(tenant, upload_id, UploadPart(offset, body, announced, checksum(request)))
    except _NO_SLIDE:
        metrics.uploads.labels("refused").inc()
        raise
    note_slide(request, _slide_of(state))
    return state


def _has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def _location(upload: UploadRecord) -> dict[str, str]:
    return {"Location": f"{UPLOADS_PATH}/{upload.id}"}


def _offset_headers(state: UploadState) -> dict[str, str]:
    headers = {
        "Upload-Offset": str(state.offset_bytes),
        "Upload-Expires": format_datetime(state.upload.expires_at, usegmt=True),
    }
    slide_id = _slide_of(state)
    if slide_id is not None:
        headers[_SLIDE_ID] = slide_id
    return headers


def _slide_of(state: UploadState) -> str | None:
    return None if state.outcome is None else state.outcome.slide_id


def _public(state: UploadState) -> Upload:
    upload, outcome = state.upload, state.outcome
    error = outcome.error if outcome else None
    received: Literal["receiving", "received"] = "received" if upload.is_complete else "receiving"
    return Upload(
        id=upload.id,
        status=received if outcome is None else "refused" if error else "finished",
        offset_bytes=state.offset_bytes,
        length_bytes=upload.length_bytes,
        path=upload.relative_path,
        slide=upload.slide,
        slide_id=_slide_of(state),
        error=SlideError(code=error.code, detail=error.detail) if error else None,
        created_at=upload.created_at.isoformat().replace("+00:00", "Z"),
        expires_at=upload.expires_at.isoformat().replace("+00:00", "Z"),
    )
