"""/v1/slides/{id}/questions: ask, and follow up."""

from contextlib import AsyncExitStack

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from encoders.regions.outline import Outline
from server.api.access import Tenant
from server.api.audited import note_question
from server.api.contract.asked import AskedRequest
from server.api.contract.errors import OF_EVERY_KEY, OF_EVERY_QUESTION, may_raise
from server.api.contract.events import AnswerDoubt, stream_of
from server.api.contract.headers import answer_headers, request_headers
from server.api.contract.parameters import SlideId
from server.api.dependencies import AnsweringDep
from server.api.idempotency import IDEMPOTENCY_KEY, REPLAYED
from server.api.region_shapes import RegionName, RegionShape, asked_region
from server.api.request_log import CLIENT_CLOSED, request_id_of
from server.api.routes.keyed_route import KeyedRoute, done_once, needs
from server.api.stream import errors_as_events, last_event, sse_response, unless_disconnected
from server.asking.questions import Question
from server.asking.scope import WHOLE, Scope
from server.errors import ConversationDamaged, InvalidRequest, WrongConversation

router = APIRouter(prefix="/v1", tags=["questions"], route_class=KeyedRoute)
# Sent only when it is not 0, so that bodies and events keep their shape.
TURNS_LEFT_OUT = "X-Turns-Left-Out"


class QuestionRequest(AskedRequest):
    """A question about one slide; without conversation_id it starts a conversation."""

    conversation_id: str | None = Field(
        None,
        max_length=64,
        description="The conversation to continue, as an earlier answer named it; leave it out to begin a new one.",
    )
    region: RegionName | RegionShape | None = Field(
        None,
        description="What of the slide is asked about: a region's id, or a region as it is drawn, which is made then; "
        f"`{WHOLE}` is the whole slide. Left out, a conversation goes on about what its last turn was about, and a new "
        "one is about the slide. Of earlier turns the model is given those about the same.",
        examples=["reg_" + "0c" * 16],
    )

    def as_question(self, request_id: str, region: Outline | str | None) -> Question:
        """The request without its transport, but for its name in the log; `region` is the body's (`asked_region`).

        Raises:
            InvalidRequest: it asks for choices and how to generate.
        """
        choices = tuple(self.choices or ())
        return Question(self.question, self.conversation_id, self.sampling, self.model, request_id, region, choices)


class TokenUsage(BaseModel):
    """Tokens of one answer."""

    prompt_tokens: int = Field(description="Tokens of the question, earlier turns and the slide.")
    slide_tokens: int = Field(description="How many of them are the slide's.")
    cached_tokens: int = Field(description="How many of them came from the language model's prefix cache.")
    completion_tokens: int = Field(description="Tokens of the answer.")


class AnswerTiming(BaseModel):
    """Milliseconds since the question arrived."""

    cache_ms: float = Field(description="Until the slide's embedding was loaded.")
    time_to_first_token_ms: float | None = Field(description="Until the first token.")
    total_ms: float = Field(description="Until the answer was complete.")


class AnswerChoice(BaseModel):
    """A choice of the question."""

    text: str = Field(examples=["Yes"])
    probability: float = Field(
        ge=0,
        le=1,
        description="Its share of the probability of all choices; together they are 1. It is not calibrated: show no "
        "per cent.",
        examples=[0.93],
    )


class Answer(BaseModel):
    """A whole answer: data of the event `done`, and the body with `stream: false`."""

    answer: str = Field(examples=["Invasive carcinoma of moderate grade."])
    choices: list[AnswerChoice] = Field(
        description="Of a question with `choices` each of them, in the order of the request; else empty."
    )
    conversation_id: str | None = Field(
        description="Send it with a follow-up; null when a new conversation could not be stored."
    )
    turn: int | None = Field(
        description="Number of this turn in the conversation, from 1, by which feedback names it; null when it could "
        "not be stored.",
        examples=[1],
    )
    remembered: bool = Field(
        description="False: the answer is complete but could not be stored, so a follow-up will not know of it."
    )
    usage: TokenUsage
    timing: AnswerTiming
    model: str = Field(description="The model that answered.", examples=["demo"])
    encoder_id: str = Field(description="Identifies everything that the slide's embedding depends on.")
    scope: Scope = Field(description="What of the slide it is about; show it beside the answer.")
    notice: str = Field(description="Research-use notice and the model's limits; show it to users.")
    warnings: list[AnswerDoubt] = Field(description="What is doubtful about this answer; empty when nothing is.")


@router.post(
    "/slides/{slide_id}/questions",
    dependencies=[*needs("ask", "questions"), *done_once()],
    openapi_extra=request_headers("Idempotency-Key"),
    response_model=Answer,
    responses={
        200: {
            "description": "Events, or one object with `stream: false`.",
            "content": stream_of("QuestionEvent"),
            **answer_headers(TURNS_LEFT_OUT, REPLAYED),
        },
        **may_raise(*OF_EVERY_QUESTION, WrongConversation, ConversationDamaged, *OF_EVERY_KEY),
    },
)
async def ask_question(
    slide_id: SlideId,
    body: QuestionRequest,
    request: Request,
    tenant: Tenant,
    answering: AnsweringDep,
) -> Response:
    """Ask about a slide: server-sent events, or one JSON object with `stream: false`.

    The event `notice` comes first: whose answer it will be, and what must be known to read it. `token` events hold the
    answer as it is written; then comes `done` with the whole of it, or `error`. A `token` event holds the text that
    arrived together, which is mostly one token; an answer that is one of `choices` is one `token` event."""
    story, cut = answering.story, answering.drain.cut
    note_question(request, body.question)
    if body.stream and IDEMPOTENCY_KEY in request.headers:
        raise InvalidRequest("Idempotency-Key goes with `stream: false`; events that were streamed are not kept.")
    async with AsyncExitStack() as resources:
        resources.enter_context(answering.slots.one(tenant))
        question = body.as_question(request_id_of(request.scope), await asked_region(body.region))
        opened = await unless_disconnected(request, story.open(tenant, slide_id, question), cut)
        if opened is None:
            return Response(status_code=CLIENT_CLOSED)
        resources.push_async_callback(opened.answer.close)
        headers = {TURNS_LEFT_OUT: str(opened.turns_left_out)} if opened.turns_left_out else {}
        events = story.stream(opened)
        if body.stream:
            streamed = sse_response(errors_as_events(events), cut, resources.pop_all())
            streamed.headers.update(headers)
            return streamed
        done = await unless_disconnected(request, last_event(events), cut)
    return Response(status_code=CLIENT_CLOSED) if done is None else JSONResponse(done.data, headers=headers)
