"""/v1/dicomweb: slides that come as DICOM instances (STOW-RS, DICOM PS3.18, 10.5)."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from server.api.access import Tenant
from server.api.contract.errors import may_raise
from server.api.dependencies import MetricsDep, ReceiveSeriesDep, UploadSlotsDep
from server.api.dicom_json import DICOM_JSON, stow_answer, stow_status
from server.api.request_bodies import announced_bytes
from server.api.routes.keyed_route import KeyedRoute, needs
from server.errors import (
    BodyTooSlow,
    Overloaded,
    QuotaExceeded,
    StorageFull,
    UploadTooLarge,
    WrongContentType,
)
from server.flow.receive_series import WaitingSeries
from server.slides.slide_record import SlideError

router = APIRouter(prefix="/v1/dicomweb", tags=["dicomweb"], route_class=KeyedRoute)
_STUDIES = f"{router.prefix}/studies"
_MOST_WAITING = 100
StudyUid = Annotated[
    str,
    Path(
        description="Study Instance UID, which all instances of the request must have.",
        examples=["1.2.826.0.1.3680043.8.498.1"],
        json_schema_extra={"pattern": "^[0-9.]{1,64}$"},
    ),
]
_DATASET: dict[str, Any] = {"content": {DICOM_JSON: {"schema": {"$ref": "#/components/schemas/DicomDataset"}}}}
_STORES: dict[str, Any] = {
    "dependencies": needs("slides:write", "upload_bytes"),
    "response_class": JSONResponse,
    "response_description": "All instances are kept.",
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {"multipart/related": {"schema": {"$ref": "#/components/schemas/DicomInstances"}}},
        }
    },
    "responses": {
        200: _DATASET,
        202: {
            "description": "Some instances are not kept (Failed SOP Sequence), or their pictures are not because they "
            "are no levels (Warning Reason B006).",
            **_DATASET,
        },
        409: {"description": "No instance is kept (Failed SOP Sequence says why).", **_DATASET},
        **may_raise(UploadTooLarge, WrongContentType, BodyTooSlow, QuotaExceeded, Overloaded, StorageFull),
    },
}


class Series(BaseModel):
    """A DICOM series that is no slide yet."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    study_uid: str = Field(description="Study Instance UID.", examples=["1.2.826.0.1.3680043.8.498.1"])
    series_uid: str = Field(description="Series Instance UID.", examples=["1.2.826.0.1.3680043.8.498.2"])
    status: Literal["waiting", "incomplete", "refused"] = Field(
        description="`waiting`: it becomes a slide when no more of it comes for a while; `incomplete`: see `missing`; "
        "`refused`: see `error`."
    )
    instances: int = Field(description="How many instances have come.", examples=[3])
    size_bytes: int = Field(description="Their total size.", examples=[734003200])
    missing: list[str] = Field(description="What is known to be missing, in sentences.")
    slide_in_s: int | None = Field(
        description="In how many seconds it becomes a slide, if nothing more comes; null if it does not.", examples=[60]
    )
    error: SlideError | None = Field(description="Why it is no slide; null unless it was refused.")
    expires_at: str = Field(
        description="When it is removed if nothing more comes.",
        examples=["2026-11-30T17:00:00Z"],
        json_schema_extra={"format": "date-time"},
    )


class WaitingSeriesList(BaseModel):
    """Series that are no slides yet, at most 100 of them."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    object: Literal["list"] = "list"
    data: list[Series]


@router.post("/studies", **_STORES)
async def store_instances(
    request: Request, tenant: Tenant, story: ReceiveSeriesDep, slots: UploadSlotsDep, metrics: MetricsDep
) -> JSONResponse:
    """STOW-RS: send instances of whole slides as multipart/related; type="application/dicom".

    The instances of a series become one slide when no more of them have come for a while (`EYEPIECE_DICOM_QUIET_S`)
    and nothing is known to be missing; the slide answers to `dicom:<series uid>` then. Sent again, an instance changes
    nothing. Labels, overviews and thumbnails are not kept. One request may be as large as one slide."""
    return await _stored(request, tenant, story, slots, metrics, None)


@router.post("/studies/{study_uid}", **_STORES)
async def store_instances_of_study(
    request: Request,
    study_uid: StudyUid,
    tenant: Tenant,
    story: ReceiveSeriesDep,
    slots: UploadSlotsDep,
    metrics: MetricsDep,
) -> JSONResponse:
    """STOW-RS: as POST /v1/dicomweb/studies, for instances of one study; those of others are not kept."""
    return await _stored(request, tenant, story, slots, metrics, study_uid)


@router.get("/waiting")
async def list_waiting_series(tenant: Tenant, story: ReceiveSeriesDep) -> WaitingSeriesList:
    """The series that have come and are no slides yet, and what is missing of them."""
    return WaitingSeriesList(data=[_public(it) for it in await story.waiting(tenant, _MOST_WAITING)])


def is_upload(method: str, path: str) -> bool:
    """Whether a request's body are instances, which have limits of their own."""
    return method == "POST" and (path == _STUDIES or path.startswith(f"{_STUDIES}/"))


async def _stored(
    request: Request,
    tenant: str,
    story: ReceiveSeriesDep,
    slots: UploadSlotsDep,
    metrics: MetricsDep,
    study: str | None,
) -> JSONResponse:
    with slots.one(tenant):
        content_type = request.headers.get("content-type", "")
        try:
            taken = await story.receive(tenant, request.stream(), content_type, announced_bytes(request), study)
        except Exception:
            metrics.uploads.labels("refused").inc()
            raise
    return JSONResponse(stow_answer(taken), stow_status(taken), media_type=DICOM_JSON)


def _public(waiting: WaitingSeries) -> Series:
    error = waiting.outcome.error if waiting.outcome is not None else None
    expires_at = max(it.expires_at for it in waiting.uploads) if waiting.outcome is None else waiting.outcome.expires_at
    return Series(
        study_uid=waiting.study,
        series_uid=waiting.series,
        status="refused" if error else "incomplete" if waiting.missing else "waiting",
        instances=len(waiting.uploads),
        size_bytes=sum(it.length_bytes for it in waiting.uploads),
        missing=list(waiting.missing),
        slide_in_s=None if waiting.due_in_s is None else round(waiting.due_in_s),
        error=SlideError(code=error.code, detail=error.detail) if error else None,
        expires_at=expires_at.isoformat().replace("+00:00", "Z"),
    )
