"""/v1/usage: what the tenant has stored and had encoded, and how much it may."""

from fastapi import APIRouter

from server.access import Tenant
from server.parts import WithParts
from server.routes.keyed_route import KeyedRoute
from server.usage import UsageReport

router = APIRouter(prefix="/v1", tags=["usage"], route_class=KeyedRoute)


@router.get("/usage")
async def get_usage(tenant: Tenant, parts: WithParts) -> UsageReport:
    """Stored bytes and this day's encodings, with their quotas."""
    return await parts.usage.report(tenant)
