"""/v1/slides/{id}/reports: written from a template, kept as numbered drafts, read as JSON, text, PDF or FHIR."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Annotated, Any, Literal, get_args

import orjson
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from server.api.access import Tenant
from server.api.contract.asked import SAYS_SOMETHING, Choices
from server.api.contract.errors import OF_EVERY_KEY, OF_EVERY_QUESTION, may_raise
from server.api.contract.events import stream_of
from server.api.contract.headers import answer_headers, request_headers
from server.api.contract.parameters import SlideId
from server.api.dependencies import (
    CatalogueDep,
    DrainDep,
    QuestionSlotsDep,
    ReportsDep,
    UsageDep,
    WriteReportDep,
    parts_of,
)
from server.api.idempotency import IDEMPOTENCY_KEY, REPLAYED
from server.api.request_log import CLIENT_CLOSED, request_id_of
from server.api.routes.keyed_route import KeyedRoute, done_once, needs
from server.api.stream import errors_as_events, last_event, sse_response, unless_disconnected
from server.asking.choices import MOST_CHOICES
from server.errors import InvalidRequest, NotFound, Overloaded, RecordUnreadable, ReportInterrupted
from server.reports.report_record import (
    LAST_NUMBER,
    MOST_REPORTS,
    ReportedModel,
    ReportedSlide,
    ReportRecord,
    ReportSection,
    ReportStatus,
)
from server.reports.report_template import (
    DEFAULT_TEMPLATE,
    MOST_HEADING_CHARS,
    MOST_SECTIONS,
    MOST_TITLE_CHARS,
    ReportTemplate,
    TemplateSection,
)
from server.reports.write_fhir import diagnostic_report
from server.reports.write_pdf import report_pdf
from server.reports.write_text import report_text
from server.slides.progress import Event
from server.slides.slide_record import SlideError

router = APIRouter(prefix="/v1/slides/{slide_id}/reports", tags=["reports"], route_class=KeyedRoute)
ReportFormat = Literal["json", "text", "pdf", "fhir"]
MEDIA_TYPES: dict[ReportFormat, str] = {
    "json": "application/json",
    "text": "text/plain",
    "pdf": "application/pdf",
    "fhir": "application/fhir+json",
}
_ENDINGS: dict[ReportFormat, str] = {"json": "json", "text": "txt", "pdf": "pdf", "fhir": "fhir.json"}
ReportNumber = Annotated[
    int,
    Path(ge=1, le=LAST_NUMBER, description="Number of the report among the slide's, from 1.", examples=[1]),
]
_NEEDS = needs("reports")


class SectionRequest(BaseModel):
    """A section: its question is asked by itself, of the whole slide."""

    model_config = ConfigDict(extra="forbid")

    heading: str = Field(
        min_length=1,
        max_length=MOST_HEADING_CHARS,
        examples=["Findings"],
        json_schema_extra={"pattern": SAYS_SOMETHING},
    )
    question: str = Field(
        description="Plain text; the server's settings limit its length.",
        examples=["Describe the main histological findings of this slide."],
        json_schema_extra={"pattern": SAYS_SOMETHING},
    )
    choices: Choices | None = Field(
        None,
        min_length=2,
        max_length=MOST_CHOICES,
        description="The answer is exactly one of these, as with questions.",
        json_schema_extra={"uniqueItems": True},
    )


class ReportRequest(BaseModel):
    """What a report asks; an empty object asks the server's own template."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field(
        DEFAULT_TEMPLATE.title,
        min_length=1,
        max_length=MOST_TITLE_CHARS,
        examples=["Draft report, breast biopsy"],
        json_schema_extra={"pattern": SAYS_SOMETHING},
    )
    sections: list[SectionRequest] | None = Field(
        None,
        min_length=1,
        max_length=MOST_SECTIONS,
        description="In their order. Left out: " + ", ".join(it.heading for it in DEFAULT_TEMPLATE.sections) + ".",
    )
    model: str | None = Field(
        None,
        max_length=64,
        description="The `id` of a model of `GET /v1/models`; the first of them when left out.",
        examples=["demo"],
    )
    stream: bool = Field(
        True, description="True: stream server-sent events. False: one JSON object when the report is kept."
    )

    def as_template(self) -> ReportTemplate:
        """The request without its transport.

        Raises:
            InvalidRequest: two sections have one heading.
        """
        if self.sections is None:
            return ReportTemplate(self.title, DEFAULT_TEMPLATE.sections)
        headings = [section.heading.strip() for section in self.sections]
        if len(set(headings)) < len(headings) or not all(headings) or not self.title.strip():
            raise InvalidRequest("Each section needs a heading of its own, and the report a title; give others.")
        sections = (TemplateSection(it.heading, it.question, tuple(it.choices or ())) for it in self.sections)
        return ReportTemplate(self.title, tuple(sections))


class Report(BaseModel):
    """A report: what a model answered, which nobody has read or signed. It never changes."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    object: Literal["report"] = "report"
    id: str = Field(description="Names it among all reports.", examples=["rep_" + "0c" * 16])
    number: int = Field(description="Its number among the slide's, which is given once.", examples=[1])
    status: ReportStatus = Field(description="Always `preliminary`.")
    title: str
    created_at: AwareDatetime
    request_id: str | None = Field(description="Names the request in the server's log.")
    slide: ReportedSlide = Field(description="The slide as it was then, with what was said of it.")
    model: ReportedModel = Field(description="Who wrote it, and the notice to show with it.")
    sections: list[ReportSection] = Field(description="In their order.")


class ReportEntry(BaseModel):
    """A report in a list. Of one that cannot be read any more only the number is known, and `error` says why."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    number: int
    id: str | None
    title: str | None
    model: str | None
    created_at: AwareDatetime | None
    error: SlideError | None


class ReportList(BaseModel):
    """The reports of a slide."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    object: Literal["list"] = "list"
    data: list[ReportEntry] = Field(description=f"All of them, at most {MOST_REPORTS}, the newest first.")


@router.post(
    "",
    dependencies=[*needs("reports", "questions"), *done_once()],
    status_code=201,
    openapi_extra=request_headers("Idempotency-Key"),
    response_model=Report,
    responses={
        200: {"description": "Events.", "content": stream_of("ReportEvent")},
        201: {"description": "With `stream: false`: the report is kept.", **answer_headers("Location", REPLAYED)},
        **may_raise(*OF_EVERY_QUESTION, ReportInterrupted, Overloaded, *OF_EVERY_KEY),
    },
)
async def write_report(
    slide_id: SlideId,
    body: ReportRequest,
    request: Request,
    tenant: Tenant,
    story: WriteReportDep,
    slots: QuestionSlotsDep,
    drain: DrainDep,
) -> Response:
    """Write a report: the question of each section is put to the slide by itself, and the answers are kept together.

    The event `report` comes first: the headings, whose answers they will be, and what must be known to read them. Of
    each section follow `token` … and `section`; then `done` with the report as it is kept. When one section breaks off,
    the event `error` comes and **nothing is kept**. Each section takes one of the rate of questions, and begins a
    conversation, so that it can be asked on, judged, and asked for its evidence."""
    if body.stream and IDEMPOTENCY_KEY in request.headers:
        raise InvalidRequest("Idempotency-Key goes with `stream: false`; events that were streamed are not kept.")
    rates, digest = parts_of(request).rates, request.state.caller.digest
    async with AsyncExitStack() as resources:
        resources.enter_context(slots.one(tenant))
        opening = story.open(tenant, slide_id, body.as_template(), body.model, request_id_of(request.scope))
        opened = await unless_disconnected(request, opening, drain.cut)
        if opened is None:
            return Response(status_code=CLIENT_CLOSED)
        resources.push_async_callback(opened.first.answer.close)
        events = _public(story.stream(opened, lambda: rates.admit(tenant, digest, "questions")))
        if body.stream:
            return sse_response(errors_as_events(events), drain.cut, resources.pop_all())
        done = await unless_disconnected(request, last_event(events), drain.cut)
    if done is None:
        return Response(status_code=CLIENT_CLOSED)
    return JSONResponse(done.data, 201, {"Location": f"/v1/slides/{slide_id}/reports/{done.data['number']}"})


@router.get("", dependencies=_NEEDS, responses=may_raise(NotFound))
async def list_reports(slide_id: SlideId, tenant: Tenant, catalogue: CatalogueDep, reports: ReportsDep) -> ReportList:
    """The reports of a slide, the newest first."""
    paths = (await catalogue.require_readable_or_not(tenant, slide_id)).paths

    async def entry(number: int) -> ReportEntry | None:
        try:
            it = await reports.require(paths, number)
        except NotFound:  # deleted at this moment
            return None
        except RecordUnreadable as error:
            nothing = dict.fromkeys(("id", "title", "model", "created_at"))
            return ReportEntry(number=number, **nothing, error=SlideError(code=error.code, detail=error.detail))
        return ReportEntry(
            number=number, id=it.id, title=it.title, model=it.model.name, created_at=it.created_at, error=None
        )

    found = await asyncio.gather(*(entry(number) for number in await reports.numbers(paths)))
    return ReportList(data=[it for it in found if it is not None])


@router.get(
    "/{number}",
    dependencies=_NEEDS,
    response_model=Report,
    openapi_extra=request_headers("Accept"),
    responses={
        200: {
            "description": "The report, in the form that was asked for.",
            "content": {
                "text/plain": {"schema": {"type": "string"}},
                "application/pdf": {"schema": {"type": "string", "format": "binary"}},
                "application/fhir+json": {"schema": {"type": "object"}},
            },
            **answer_headers("Content-Disposition"),
        },
        **may_raise(NotFound, RecordUnreadable),
    },
)
async def get_report(
    slide_id: SlideId,
    number: ReportNumber,
    request: Request,
    tenant: Tenant,
    catalogue: CatalogueDep,
    reports: ReportsDep,
    form: Annotated[
        ReportFormat | None,
        Query(
            alias="format",
            description="The form; it wins over `Accept`. `fhir` is a FHIR R4 DiagnosticReport, always preliminary.",
            examples=["pdf"],
        ),
    ] = None,
) -> Response:
    """One report: as JSON, or as `format` or `Accept` wants it. All forms say that it is a draft of a model."""
    paths = (await catalogue.require_readable_or_not(tenant, slide_id)).paths
    report = await reports.require(paths, number)
    chosen = form or _accepted(request)
    content = await asyncio.to_thread(_WRITERS[chosen], report)
    name = f"report-{paths.slide_id[:12]}-{report.number}.{_ENDINGS[chosen]}"
    headers = {
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f'inline; filename="{name}"',
        "Vary": "Authorization, Accept",
    }
    return Response(content, media_type=MEDIA_TYPES[chosen], headers=headers)


@router.delete(
    "/{number}",
    dependencies=_NEEDS,
    status_code=204,
    response_description="Deleted.",
    responses=may_raise(NotFound),
)
async def delete_report(
    slide_id: SlideId,
    number: ReportNumber,
    tenant: Tenant,
    catalogue: CatalogueDep,
    reports: ReportsDep,
    usage: UsageDep,
) -> None:
    """Delete a report; its number is not given again. Conversations that its sections began stay."""
    paths = (await catalogue.require_readable_or_not(tenant, slide_id)).paths
    async with catalogue.lock(tenant, paths.slide_id):
        removed = await reports.remove(paths, number)
    if not removed:
        raise NotFound("The slide has no report of this number.")
    await usage.give_room_back(tenant, removed)


def public_report(report: ReportRecord) -> Report:
    """The report as the contract has it."""
    return Report(**report.model_dump(include=set(Report.model_fields) - {"object"}))


def _report_json(report: ReportRecord) -> bytes:
    return public_report(report).model_dump_json().encode()


def _report_fhir(report: ReportRecord) -> bytes:
    return orjson.dumps(diagnostic_report(report))


_WRITERS: dict[ReportFormat, Callable[[ReportRecord], bytes | str]] = {
    "json": _report_json,
    "text": report_text,
    "pdf": report_pdf,
    "fhir": _report_fhir,
}


def _accepted(request: Request) -> ReportFormat:
    """The form that `Accept` names with the highest weight, the first of equal ones; JSON where it names none."""
    best, chosen = 0.0, "json"
    for part in request.headers.get("accept", "").split(","):
        kind, *parameters = (it.strip() for it in part.lower().split(";"))
        weight = next((it[2:] for it in parameters if it.startswith("q=")), "1")
        for name in get_args(ReportFormat):
            if kind == MEDIA_TYPES[name] and _number(weight) > best:
                best, chosen = _number(weight), name
    return chosen  # type: ignore[return-value]  # one of the names above


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


async def _public(events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """The events, the last one in the contract's shape."""
    async with aclosing(events):
        async for event in events:
            yield Event("done", {"object": "report", **_without_format(event.data)}) if event.name == "done" else event


def _without_format(data: dict[str, Any]) -> dict[str, Any]:
    return {name: it for name, it in data.items() if name != "format_version"}
