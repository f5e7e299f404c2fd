"""/v1/imports: series that the server pulls from archives which its operator has named."""

from contextlib import AsyncExitStack
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from server.api.access import Tenant
from server.api.contract.errors import may_raise
from server.api.contract.events import stream_of
from server.api.contract.headers import answer_headers
from server.api.dependencies import DrainDep, FollowerSlotsDep, FollowImportDep, PullSeriesDep
from server.api.routes.keyed_route import KeyedRoute
from server.api.stream import errors_as_events, sse_response
from server.errors import NotFound, Overloaded
from server.slides.progress import valid_event_id
from server.slides.slide_record import SlideError
from server.uploads.dicom.import_record import ImportRecord, ImportStatus

router = APIRouter(prefix="/v1/imports", tags=["imports"], route_class=KeyedRoute)
_MOST_LISTED = 100
_UID = r"^[0-9.]{1,64}$"
ImportId = Annotated[
    str,
    Path(
        description="The import's id, as its beginning answered it.",
        examples=["7a" * 16],
        json_schema_extra={"pattern": "^[0-9a-f]{32}$"},
    ),
]


class ImportRequest(BaseModel):
    """Which series to pull, and from where."""

    model_config = ConfigDict(extra="forbid")

    dicomweb: str = Field(max_length=40, description="Name of an archive, as the operator chose it.", examples=["pacs"])
    study: str = Field(pattern=_UID, description="Study Instance UID.", examples=["1.2.826.0.1.3680043.8.498.1"])
    series: str = Field(pattern=_UID, description="Series Instance UID.", examples=["1.2.826.0.1.3680043.8.498.2"])


class Import(BaseModel):
    """A series that is pulled from an archive."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    id: str = Field(examples=["7a" * 16])
    object: Literal["import"] = "import"
    dicomweb: str = Field(description="The archive's name.", examples=["pacs"])
    study_uid: str = Field(examples=["1.2.826.0.1.3680043.8.498.1"])
    series_uid: str = Field(examples=["1.2.826.0.1.3680043.8.498.2"])
    status: ImportStatus = Field(
        description="`queued`: it begins, or goes on, by itself; `done`: see `slide_id`; `incomplete`: see `missing`, "
        "and ask again when the archive has it; `failed`: see `error`."
    )
    instances_done: int = Field(description="How many instances have come.", examples=[3])
    instances: int | None = Field(description="How many the archive has; null before it was asked.", examples=[7])
    size_bytes: int = Field(description="How many bytes have come.", examples=[734003200])
    attempts: int = Field(description="How often it was begun or gone on with.", examples=[1])
    missing: list[str] = Field(description="What is known to be missing, in sentences.")
    slide_id: str | None = Field(description="The slide that it became.", examples=["5e" * 32])
    error: SlideError | None = Field(description="Why it failed; while it is `queued`, why it did not go on.")
    created_at: datetime
    changed_at: datetime


class ImportList(BaseModel):
    """The tenant's imports, the newest first, at most 100 of them."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    object: Literal["list"] = "list"
    data: list[Import]


@router.post(
    "",
    status_code=202,
    response_model=Import,
    response_description="It begins by itself; follow its events.",
    responses={202: answer_headers("Location"), **may_raise(NotFound, Overloaded)},
)
async def begin_import(asked: ImportRequest, tenant: Tenant, story: PullSeriesDep) -> JSONResponse:
    """Pull a series from an archive that the operator has named (`EYEPIECE_DICOMWEB_ARCHIVES`); its levels become the
    same slide as if the archive had sent them.

    It goes on whatever happens to this connection or server. Asked again while it runs, it is the same import; after
    its end it begins anew, and fetches nothing that has come."""
    record = await story.begin(tenant, asked.dicomweb, asked.study, asked.series)
    headers = {"Location": f"{router.prefix}/{record.id}"}
    return JSONResponse(_public(record).model_dump(mode="json"), 202, headers)


@router.get("")
async def list_imports(tenant: Tenant, story: PullSeriesDep) -> ImportList:
    """The imports that run, and those of the last day."""
    found = sorted(await story.imports.all(tenant), key=lambda it: it.created_at, reverse=True)
    return ImportList(data=[_public(it) for it in found[:_MOST_LISTED]])


@router.get("/{import_id}", responses=may_raise(NotFound))
async def get_import(import_id: ImportId, tenant: Tenant, story: PullSeriesDep) -> Import:
    """How an import stands."""
    return _public(await story.require(tenant, import_id))


@router.get(
    "/{import_id}/events",
    response_class=StreamingResponse,
    response_description="Events until the import is over.",
    responses={200: {"content": stream_of("ImportEvent")}, **may_raise(NotFound, Overloaded)},
)
async def follow_import(
    import_id: ImportId,
    tenant: Tenant,
    story: PullSeriesDep,
    following: FollowImportDep,
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
    """Follow an import as server-sent events: `progress {done, total, size_bytes}` …, then `done {slide_id}`,
    `incomplete {missing}` or `failed {code, detail}`. Resumes with `Last-Event-ID`."""
    record = await story.require(tenant, import_id)
    resources = AsyncExitStack()
    resources.enter_context(slots.one(tenant))
    events = errors_as_events(following.events(record, valid_event_id(last_event_id)))
    return sse_response(events, drain.cut, resources)


def _public(record: ImportRecord) -> Import:
    error = record.error
    return Import(
        id=record.id,
        dicomweb=record.archive,
        study_uid=record.study,
        series_uid=record.series,
        status=record.status,
        instances_done=record.done,
        instances=record.total,
        size_bytes=record.size_bytes,
        attempts=record.attempts,
        missing=list(record.missing),
        slide_id=record.slide_id,
        error=None if error is None else SlideError(code=error.code, detail=error.detail),
        created_at=record.created_at,
        changed_at=record.changed_at,
    )
