"""/v1/conversations/{id}/turns/{n}/feedback and /v1/feedback: what people thought of answers, given and exported."""

import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from server.api.access import Tenant
from server.api.contract.errors import may_raise
from server.api.contract.events import JSON_LINES, lines_of
from server.api.contract.parameters import ConversationId, TurnNumber
from server.api.dependencies import DownloadSlotsDep, FeedbackDep, GiveFeedbackDep
from server.api.downloads import Download, slot_of
from server.api.routes.keyed_route import KeyedRoute, needs
from server.errors import ConversationDamaged, NotFound, Overloaded, StorageFull
from server.slides.feedback import FeedbackRecord, FeedbackShelf, TurnName, Verdict

router = APIRouter(prefix="/v1", tags=["feedback"], route_class=KeyedRoute)
_TURN = "/conversations/{conversation_id}/turns/{turn}/feedback"
_MOST_WORDS = 2_000
_OF_A_TURN = (NotFound, ConversationDamaged)
# Pydantic takes numbers for seconds since 1970 too.
_WRITTEN_OUT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d")


def _written_out(text: Any) -> Any:
    if isinstance(text, str) and not _WRITTEN_OUT.match(text):
        raise ValueError("write a moment as in RFC 3339, e.g. 2026-11-01T00:00:00Z")
    return text


class FeedbackRequest(BaseModel):
    """A verdict on a turn."""

    model_config = ConfigDict(extra="forbid")

    verdict: Verdict = Field(description="Whether the answer is right, in the view of whoever asked.")
    words: str | None = Field(
        None,
        max_length=_MOST_WORDS,
        description="Why, in plain text. It is kept and exported as it was typed: write nothing about a patient.",
        examples=["The necrosis is on the other side."],
    )


class Feedback(BaseModel):
    """What somebody thought of a turn, with the turn as it was then."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    object: Literal["feedback"] = "feedback"
    slide_id: str = Field(description="The slide that was asked about.")
    conversation_id: str
    turn: int = Field(description="Number of the turn in its conversation, from 1.")
    question: str
    answer: str
    model: str | None = Field(description="The model that answered; null where unknown.", examples=["demo"])
    encoder_id: str | None = Field(description="What the slide's embedding was made by; null where unknown.")
    request_id: str | None = Field(description="Names the request in the server's log; null where unknown.")
    region_id: str | None = Field(description="The region that was asked about; null for the whole slide.")
    answered_at: datetime = Field(description="When the answer was complete.")
    verdict: Verdict
    words: str | None = Field(description="Why, as it was typed; null for none.")
    given_at: datetime = Field(description="When the verdict was given, or changed.")


class DamagedFeedback(BaseModel):
    """A line of an export in place of what cannot be read any more."""

    object: Literal["feedback.damaged"]
    slide_id: str
    conversation_id: str
    turn: int


@router.put(_TURN, dependencies=needs("ask"), responses=may_raise(*_OF_A_TURN, StorageFull))
async def give_feedback(
    conversation_id: ConversationId, turn: TurnNumber, body: FeedbackRequest, tenant: Tenant, story: GiveFeedbackDep
) -> Feedback:
    """Agree or disagree with an answer, or be unsure, in place of what was given before. Question and answer are
    copied, so that the feedback outlives the conversation's time; it goes with the slide, and with the conversation
    when that is deleted."""
    return _shown(await story.give(tenant, conversation_id, turn, body.verdict, (body.words or "").strip() or None))


@router.get(_TURN, dependencies=needs("ask"), responses=may_raise(*_OF_A_TURN))
async def get_feedback(
    conversation_id: ConversationId, turn: TurnNumber, tenant: Tenant, story: GiveFeedbackDep
) -> Feedback:
    """What was given for a turn."""
    return _shown(await story.look(tenant, conversation_id, turn))


@router.delete(
    _TURN,
    dependencies=needs("ask"),
    status_code=204,
    response_description="Taken back.",
    responses=may_raise(*_OF_A_TURN),
)
async def take_feedback_back(
    conversation_id: ConversationId, turn: TurnNumber, tenant: Tenant, story: GiveFeedbackDep
) -> None:
    """Delete what was given for a turn, with the copy of question and answer."""
    await story.take_back(tenant, conversation_id, turn)


@router.get(
    "/feedback",
    dependencies=needs("admin"),
    response_class=StreamingResponse,
    response_description="A JSON object a line; none when nothing was given.",
    responses={200: {"content": lines_of("FeedbackLine")}, **may_raise(Overloaded)},
)
async def export_feedback(
    tenant: Tenant,
    feedback: FeedbackDep,
    slots: DownloadSlotsDep,
    since: Annotated[
        AwareDatetime | None,
        BeforeValidator(_written_out),
        Query(
            description="Only what was given or changed then or later; with `given_at` of an export's last line the "
            "next one goes on there.",
            examples=["2026-11-01T00:00:00Z"],
        ),
    ] = None,
) -> StreamingResponse:
    """All feedback of the tenant as JSON lines, in the order in which it was given or changed. What is changed while it
    is exported may come twice; the later line holds. The lines hold what people typed."""
    content = _lines(feedback, tenant, since)
    return Download(content, slot_of(slots, tenant), media_type=JSON_LINES, headers={"Cache-Control": "no-store"})


async def _lines(feedback: FeedbackShelf, tenant: str, since: datetime | None) -> AsyncIterator[bytes]:
    async for found in feedback.since(tenant, since):
        line = _damaged(found) if isinstance(found, TurnName) else _shown(found)
        yield orjson.dumps(line.model_dump(mode="json")) + b"\n"


def _shown(record: FeedbackRecord) -> Feedback:
    return Feedback(**record.model_dump(include=set(Feedback.model_fields) - {"object"}))


def _damaged(name: TurnName) -> DamagedFeedback:
    return DamagedFeedback(
        object="feedback.damaged", slide_id=name.slide_id, conversation_id=name.conversation_id, turn=name.turn
    )
