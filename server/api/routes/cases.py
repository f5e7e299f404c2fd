"""/v1/cases: the slides of a case, and a question to each of them. A case is named in a query or a body and never in an
address: it can lead to a patient, and addresses are what proxies, logs and histories keep."""

from contextlib import AsyncExitStack
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from server.api.access import Tenant
from server.api.audited import note_question
from server.api.contract.asked import AskedRequest
from server.api.contract.case_events import CaseAnswers
from server.api.contract.errors import may_raise
from server.api.contract.events import stream_of
from server.api.dependencies import AskCaseDep, DrainDep, QuestionSlotsDep, parts_of
from server.api.request_log import CLIENT_CLOSED, request_id_of
from server.api.routes.keyed_route import KeyedRoute, needs
from server.api.stream import errors_as_events, last_event, sse_response, unless_disconnected
from server.asking.questions import Question
from server.errors import NotFound, Overloaded, QuestionTooLong
from server.flow.ask_case import MOST_SLIDES_ASKED
from server.slides.public_slide import Slide
from server.uploads.slide_metadata import MOST_METADATA_CHARS

router = APIRouter(prefix="/v1/cases", tags=["cases"], route_class=KeyedRoute)
_MOST_SHOWN = 100


class Case(BaseModel):
    """Slides that say they are of one case."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    object: Literal["case"] = "case"
    case: str = Field(description="As it was asked for.", examples=["S26-0815"])
    slides: list[Slide] = Field(description=f"Newest first, at most {_MOST_SHOWN}.")
    more: bool = Field(description="Whether there are more slides: `GET /v1/slides?case=…` has all, page by page.")


class CaseQuestionRequest(AskedRequest):
    """A question to each slide of a case; each answer begins a conversation about its slide."""

    case: str = Field(min_length=1, max_length=MOST_METADATA_CHARS, examples=["S26-0815"])
    slides: (
        Annotated[
            list[Annotated[str, Field(json_schema_extra={"pattern": "^[0-9a-f]{64}$"})]],
            Field(min_length=1, max_length=MOST_SLIDES_ASKED),
        ]
        | None
    ) = Field(None, description="Ids of the slides of the case that are asked, in this order; all of them if left out.")

    def as_question(self, request_id: str) -> Question:
        """The request without its transport.

        Raises:
            InvalidRequest: it asks for choices and how to generate.
        """
        return Question(
            self.question,
            options=self.sampling,
            model=self.model,
            request_id=request_id,
            choices=tuple(self.choices or ()),
        )


@router.get("", responses=may_raise(NotFound))
async def get_case(
    tenant: Tenant,
    story: AskCaseDep,
    case: Annotated[
        str,
        Query(
            min_length=1,
            max_length=MOST_METADATA_CHARS,
            description="The case, as slides say it; upper and lower case are the same.",
            examples=["S26-0815"],
        ),
    ],
) -> Case:
    """The slides of a case."""
    slides, more = await story.slides_of(tenant, case, _MOST_SHOWN)
    return Case(case=case, slides=slides, more=more)


@router.post(
    "/questions",
    dependencies=needs("ask", "questions"),
    response_model=CaseAnswers,
    responses={
        200: {"description": "Events, or one object with `stream: false`.", "content": stream_of("CaseEvent")},
        **may_raise(NotFound, QuestionTooLong, Overloaded),
    },
)
async def ask_case(
    body: CaseQuestionRequest,
    request: Request,
    tenant: Tenant,
    story: AskCaseDep,
    slots: QuestionSlotsDep,
    drain: DrainDep,
) -> Response:
    """Ask each slide of a case the same question, one after the other.

    The event `case` comes first and says which slides are asked. Then, slide by slide, `notice`, `token` … and
    `answer`, or `refused` with the reason; each says its `slide_id`. The event `done` has all of it again. **Nothing is
    concluded from the answers together**: no model was made for several slides at once. Of the rate of questions each
    slide takes one; a slide for which none is left is refused (`rate_limited`)."""
    note_question(request, body.question)
    rates, digest = parts_of(request).rates, request.state.caller.digest
    async with AsyncExitStack() as resources:
        resources.enter_context(slots.one(tenant))
        opened = await story.open(tenant, body.case, body.slides, body.as_question(request_id_of(request.scope)))
        events = story.stream(opened, lambda: rates.admit(tenant, digest, "questions"))
        if body.stream:
            return sse_response(errors_as_events(events), drain.cut, resources.pop_all())
        done = await unless_disconnected(request, last_event(events), drain.cut)
    return Response(status_code=CLIENT_CLOSED) if done is None else JSONResponse(done.data)
