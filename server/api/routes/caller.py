"""/v1/caller: what a credential stands for, so that a client offers nothing that would be refused."""

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from server.api.routes.keyed_route import KeyedRoute, needs
from server.identity.access_scopes import SCOPES, AccessScope
from server.identity.caller import Caller

router = APIRouter(prefix="/v1", tags=["usage"], route_class=KeyedRoute)


class CallerReport(BaseModel):
    """What the credential of this request allows. Who holds it is not said: a token's subject may name a person."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    object: Literal["caller"] = "caller"
    tenant: str = Field(description="Whose slides it reaches.", examples=["pathology"])
    scopes: list[AccessScope] = Field(description="None of them includes another.", examples=[["slides:read", "ask"]])


@router.get("/caller", dependencies=needs(None))
async def get_caller(request: Request) -> CallerReport:
    """Tenant and scopes of the key or token that this request is made with; any that is valid may ask."""
    caller: Caller = request.state.caller
    return CallerReport(tenant=caller.tenant, scopes=[scope for scope in SCOPES if scope in caller.scopes])
