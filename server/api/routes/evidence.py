"""/v1/slides/{id}/evidence: on which tissue an answer rests."""

from contextlib import AsyncExitStack

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from encoders.errors import EvidenceUnavailable, UnknownCell
from server.api.access import Tenant
from server.api.contract.errors import OF_EVERY_RECORD, may_raise
from server.api.contract.events import Evidence, stream_of
from server.api.contract.parameters import SlideId
from server.api.dependencies import DrainDep, EvidenceSlotsDep, ShowEvidenceDep
from server.api.request_log import CLIENT_CLOSED
from server.api.routes.keyed_route import KeyedRoute, needs
from server.api.stream import errors_as_events, last_event, sse_response, unless_disconnected
from server.errors import (
    ConversationDamaged,
    LanguageModelFailed,
    LanguageModelUnavailable,
    NotFound,
    Overloaded,
    QuestionTooLong,
    QuotaExceeded,
    RegionNotReady,
    SlideFailed,
    SlideLost,
    SlideNotReady,
    StorageFull,
    WrongConversation,
)
from server.slides.feedback import MOST_TURNS

router = APIRouter(prefix="/v1/slides", tags=["evidence"], route_class=KeyedRoute)


class EvidenceRequest(BaseModel):
    """An answer by its turn, and a cell of its evidence to look at again."""

    model_config = ConfigDict(extra="forbid")

    conversation_id: str = Field(
        max_length=64, description="The conversation of the answer.", examples=["conv_0J5eYy3mQ2uVx1bTkW9aZw"]
    )
    turn: int = Field(ge=1, le=MOST_TURNS, description="Number of the answer's turn.", examples=[1])
    cell: str | None = Field(
        None, max_length=32, description="A cell by name, to divide it again; all of the tissue when left out."
    )
    stream: bool = Field(
        True, description="True: stream server-sent events. False: one JSON object when all of it is known."
    )


@router.post(
    "/{slide_id}/evidence",
    response_model=Evidence,
    dependencies=needs("ask", "questions"),
    responses={
        200: {"description": "Events, or one object with `stream: false`.", "content": stream_of("EvidenceEvent")},
        **may_raise(
            NotFound,
            *OF_EVERY_RECORD,
            WrongConversation,
            ConversationDamaged,
            SlideNotReady,
            SlideFailed,
            EvidenceUnavailable,
            UnknownCell,
            RegionNotReady,
            QuotaExceeded,
            StorageFull,
            Overloaded,
            QuestionTooLong,
            LanguageModelUnavailable,
            LanguageModelFailed,
            SlideLost,
        ),
    },
)
async def show_evidence(
    slide_id: SlideId,
    body: EvidenceRequest,
    request: Request,
    tenant: Tenant,
    story: ShowEvidenceDep,
    slots: EvidenceSlotsDep,
    drain: DrainDep,
) -> Response:
    """Leave parts of the tissue out, and see how much less likely the very same answer is without them.

    For each cell of the tissue an area, the cell with those around it, is left out and the slide's rows are made again
    from stored features; beside it as many tiles from anywhere, as a control. Nothing stands out when no drop is far
    beyond those of the controls. It takes seconds; the rows are kept for the next answer about the same, scores are
    not. Models of levels have no evidence: `evidence_unavailable` says what can be looked at instead."""
    async with AsyncExitStack() as resources:
        resources.enter_context(slots.one(tenant))
        opening = story.open(tenant, slide_id, body.conversation_id, body.turn, body.cell)
        opened = await unless_disconnected(request, opening, drain.cut)
        if opened is None:
            return Response(status_code=CLIENT_CLOSED)
        events = story.stream(opened)
        if body.stream:
            return sse_response(errors_as_events(events), drain.cut, resources.pop_all())
        done = await unless_disconnected(request, last_event(events), drain.cut)
    return Response(status_code=CLIENT_CLOSED) if done is None else JSONResponse(done.data)
