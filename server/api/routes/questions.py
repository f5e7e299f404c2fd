"""/v1/slides/{id}/questions and /v1/conversations: ask, follow up, forget."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from server.api.access import Tenant
from server.api.dependencies import AnswerQuestionDep, ConversationsDep, DrainDep, QuestionSlotsDep
from server.api.request_log import CLIENT_CLOSED
from server.api.routes.keyed_route import KeyedRoute
from server.api.stream import errors_as_events, sse_response, unless_disconnected
from server.asking.conversations import Conversation
from server.asking.questions import Question, SamplingWishes
from server.slides.progress import Event

router = APIRouter(prefix="/v1", tags=["questions"], route_class=KeyedRoute)
# Sent only when it is not 0, so that bodies and events keep their shape.
TURNS_LEFT_OUT = "X-Turns-Left-Out"


class AskRequest(BaseModel):
    """A question about one slide; without conversation_id it starts a conversation."""

    model_config = ConfigDict(extra="forbid")

    question: str
    conversation_id: str | None = Field(None, max_length=64)
    stream: bool = True
    max_tokens: int | None = Field(None, ge=1, le=8192)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)

    def as_question(self) -> Question:
        """The request without its transport."""
        wishes = SamplingWishes(max_tokens=self.max_tokens, temperature=self.temperature, seed=self.seed)
        return Question(self.question, self.conversation_id, wishes)


class UsageCounts(BaseModel):
    """Tokens of one answer; `cached_tokens` came from the language model's prefix cache."""

    prompt_tokens: int
    slide_tokens: int
    cached_tokens: int
    completion_tokens: int


class AnswerTiming(BaseModel):
    """Milliseconds since the question arrived: embedding read, first token, last token."""

    cache_ms: float
    time_to_first_token_ms: float | None
    total_ms: float


class AnswerDone(BaseModel):
    """Data of the event `done`, and the body with `stream: false`."""

    answer: str
    conversation_id: str | None = Field(
        description="Ask on with it; null when the conversation was to begin with this turn and is not remembered."
    )
    remembered: bool = Field(
        description="False: the answer is whole, but a follow-up will not know of it, because it could not be stored."
    )
    usage: UsageCounts
    timing: AnswerTiming
    model: str
    encoder_id: str
    notice: str


@router.post(
    "/slides/{slide_id}/questions",
    response_model=AnswerDone,
    responses={200: {"content": {"text/event-stream": {}}, "description": "`token` …, then `done` or `error`"}},
)
async def ask(
    slide_id: str,
    body: AskRequest,
    request: Request,
    tenant: Tenant,
    story: AnswerQuestionDep,
    slots: QuestionSlotsDep,
    drain: DrainDep,
) -> Response:
    """Ask about a slide: server-sent events, or one JSON object with `stream: false`. A `token` event holds the text
    that arrived together, which is mostly one token."""
    async with AsyncExitStack() as resources:
        resources.enter_context(slots.one(tenant))
        opening = story.open(tenant, slide_id, body.as_question())
        opened = await unless_disconnected(request, opening, drain.cut)
        if opened is None:
            return Response(status_code=CLIENT_CLOSED)
        resources.push_async_callback(opened.answer.close)
        headers = {TURNS_LEFT_OUT: str(opened.turns_left_out)} if opened.turns_left_out else {}
        events = story.stream(opened)
        if body.stream:
            streamed = sse_response(errors_as_events(events), drain.cut, resources.pop_all())
            streamed.headers.update(headers)
            return streamed
        done = await unless_disconnected(request, _last(events), drain.cut)
    return Response(status_code=CLIENT_CLOSED) if done is None else JSONResponse(done.data, headers=headers)


@router.get("/conversations/{conversation_id}")
async def get_conversation(conversation_id: str, tenant: Tenant, conversations: ConversationsDep) -> Conversation:
    """The turns so far."""
    return await conversations.require(tenant, conversation_id)


@router.delete("/conversations/{conversation_id}", status_code=204)
async def forget_conversation(conversation_id: str, tenant: Tenant, conversations: ConversationsDep) -> None:
    """Forget the turns."""
    await conversations.forget(tenant, conversation_id)


async def _last(events: AsyncGenerator[Event, None]) -> Event:
    async with aclosing(events):
        return [event async for event in events][-1]
