"""/v1/conversations: what was asked about a slide, found again and forgotten."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from server.api.access import Tenant
from server.api.audited import note_slide
from server.api.contract.errors import may_raise
from server.api.contract.parameters import SLIDE_NAME, ConversationId
from server.api.dependencies import CatalogueDep, ConversationsDep, GiveFeedbackDep
from server.api.routes.keyed_route import KeyedRoute, needs
from server.api.slide_names import slide_id_of
from server.asking.conversations import CURSOR_PATTERN, Conversation, ConversationSummary
from server.errors import ConversationDamaged, NotFound

router = APIRouter(prefix="/v1/conversations", tags=["questions"], route_class=KeyedRoute)


class ConversationPage(BaseModel):
    """Some conversations about a slide, the last used first."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    object: Literal["list"] = "list"
    data: list[ConversationSummary]
    next_cursor: str | None = Field(
        description="`cursor` of the next page, null at the end. A page may have fewer conversations than `limit` and "
        "still be followed by others."
    )


@router.get("", dependencies=needs("ask"), responses=may_raise(NotFound))
async def list_conversations(
    request: Request,
    tenant: Tenant,
    catalogue: CatalogueDep,
    conversations: ConversationsDep,
    slide: Annotated[
        str,
        Query(
            max_length=70,
            description="The id of the slide that they are about, or `dicom:` and the UID of its series.",
            examples=["5e" * 32, "dicom:1.2.826.0.1.3680043.8.498.2"],
            json_schema_extra={"pattern": SLIDE_NAME},
        ),
    ],
    cursor: Annotated[
        str,
        Query(
            max_length=64,
            description="`next_cursor` of the previous page.",
            examples=["1764382320123-conv_0J5eYy3mQ2uVx1bTkW9aZw"],
            json_schema_extra={"pattern": f"^({CURSOR_PATTERN.pattern})?$"},
        ),
    ] = "",
    limit: Annotated[
        int, Query(ge=1, le=100, description="Maximum number of conversations in a page.", examples=[50])
    ] = 20,
) -> ConversationPage:
    """The conversations about a slide, the last used first, page by page."""
    slide_id = await slide_id_of(request, slide)
    note_slide(request, slide_id)
    await catalogue.require_readable_or_not(tenant, slide_id)
    page = await conversations.page(tenant, slide_id, cursor, limit)
    return ConversationPage(data=page.conversations, next_cursor=page.next_cursor)


@router.get("/{conversation_id}", dependencies=needs("ask"), responses=may_raise(NotFound, ConversationDamaged))
async def get_conversation(
    request: Request, conversation_id: ConversationId, tenant: Tenant, conversations: ConversationsDep
) -> Conversation:
    """The turns so far."""
    conversation = await conversations.require(tenant, conversation_id)
    note_slide(request, conversation.slide_id)
    return conversation


@router.delete(
    "/{conversation_id}",
    dependencies=needs("ask"),
    status_code=204,
    response_description="Forgotten.",
    responses=may_raise(NotFound),
)
async def delete_conversation(conversation_id: ConversationId, tenant: Tenant, story: GiveFeedbackDep) -> None:
    """Forget the turns, and the feedback on them with its copies of question and answer."""
    await story.forget_conversation(tenant, conversation_id)
