"""/v1/webhooks: the tenant's receivers of events, what they were not told, and telling them again."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from server.api.access import Tenant
from server.api.contract.errors import may_raise
from server.api.dependencies import WebhooksDep
from server.api.routes.keyed_route import KeyedRoute, needs
from server.errors import NotFound
from server.webhooks.delivery_queue import MOST_DEAD, Delivery, DeliveryQueue
from server.webhooks.endpoint import EventType
from server.webhooks.webhooks import Webhooks

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], route_class=KeyedRoute)
EndpointName = Annotated[str, Path(description="The endpoint's `name`, as the operator chose it.", examples=["lis"])]


class WebhookEndpointReport(BaseModel):
    """A receiver of events. The operator sets it up (`EYEPIECE_WEBHOOKS`)."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    name: str = Field(examples=["lis"])
    host: str = Field(description="The host that is told.", examples=["lis.hospital.example"])
    events: list[EventType] = Field(description="What it is told of.")
    waiting: int = Field(description="Events that are not delivered yet.")
    dead: int = Field(description=f"Events that were given up; the newest {MOST_DEAD} are kept.")


class WebhookEndpointList(BaseModel):
    """The tenant's receivers of events."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    object: Literal["list"] = "list"
    data: list[WebhookEndpointReport]


class DeadLetter(BaseModel):
    """An event that an endpoint did not take, however often it was tried."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    id: str = Field(description="The event's id, which receivers get as `webhook-id`.", examples=["evt_" + "0c" * 16])
    type: EventType
    slide_id: str = Field(examples=["5e" * 32])
    attempts: int = Field(examples=[20])
    tried_at: datetime | None = Field(description="When it was tried last; null for never.")
    reason: str | None = Field(
        description="How the last attempt failed: `status` (see there), `redirect` (none is followed), `timeout`, "
        "`unreachable` (no connection, or a certificate that is not trusted), `unresolvable`, `forbidden_address` (the "
        "operator has not allowed it), `bad_answer`; or `queue_full`: too many waited, and it was not tried.",
        examples=["status"],
    )
    status: int | None = Field(description="HTTP status of the last answer; null for none.", examples=[503])


class DeadLetterList(BaseModel):
    """Dead letters of an endpoint, the newest first."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    object: Literal["list"] = "list"
    data: list[DeadLetter]


class ReplayRequest(BaseModel):
    """Which dead letters to try again."""

    model_config = ConfigDict(extra="forbid")

    ids: list[str] | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="Ids of events among the dead letters; others are passed over. Left out: all of them.",
        examples=[["evt_" + "0c" * 16]],
    )


class Replayed(BaseModel):
    """What is tried again."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    object: Literal["webhook_replay"] = "webhook_replay"
    replayed: int = Field(description="How many events wait again, with all their attempts.")


@router.get("", dependencies=needs("admin"))
async def list_webhooks(tenant: Tenant, webhooks: WebhooksDep) -> WebhookEndpointList:
    """Who is told of the tenant's slides, and how many events wait or were given up."""
    return WebhookEndpointList(data=[await _shown(queue) for queue in webhooks.of_tenant(tenant)])


@router.get("/{endpoint}/dead", dependencies=needs("admin"), responses=may_raise(NotFound))
async def list_dead_letters(endpoint: EndpointName, tenant: Tenant, webhooks: WebhooksDep) -> DeadLetterList:
    """Events that were given up, the newest first, until they are replayed or newer ones need the room."""
    dead = await _required(webhooks, tenant, endpoint).dead()
    return DeadLetterList(data=[_letter(delivery) for delivery in dead])


@router.post("/{endpoint}/replay", dependencies=needs("admin"), status_code=202, responses=may_raise(NotFound))
async def replay_dead_letters(
    endpoint: EndpointName, body: ReplayRequest, tenant: Tenant, webhooks: WebhooksDep
) -> Replayed:
    """Try dead letters again, from the first attempt on. Each keeps its id, its body and the time that this says; the
    signature is new."""
    chosen = None if body.ids is None else frozenset(body.ids)
    return Replayed(replayed=await _required(webhooks, tenant, endpoint).replay(chosen))


def _required(webhooks: Webhooks, tenant: str, name: str) -> DeliveryQueue:
    queue = webhooks.named(tenant, name)
    if queue is None:
        raise NotFound("There is no webhook endpoint of this name; GET /v1/webhooks lists yours.")
    return queue


async def _shown(queue: DeliveryQueue) -> WebhookEndpointReport:
    waiting, dead = await queue.counts()
    told = queue.endpoint
    return WebhookEndpointReport(name=told.name, host=told.host, events=list(told.events), waiting=waiting, dead=dead)


def _letter(delivery: Delivery) -> DeadLetter:
    event = delivery.event
    return DeadLetter(
        id=event.id,
        type=event.type,
        slide_id=event.slide_id,
        attempts=delivery.attempts,
        tried_at=None if delivery.tried_at is None else datetime.fromisoformat(delivery.tried_at),
        reason=delivery.reason,
        status=delivery.status,
    )
