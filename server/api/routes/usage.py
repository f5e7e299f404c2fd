"""/v1/usage: what the tenant has stored and had encoded, and how much it may."""

from fastapi import APIRouter

from server.api.access import Tenant
from server.api.dependencies import UsageDep
from server.api.routes.keyed_route import KeyedRoute
from server.slides.usage import UsageReport

router = APIRouter(prefix="/v1", tags=["usage"], route_class=KeyedRoute)


@router.get("/usage")
async def get_usage(tenant: Tenant, usage: UsageDep) -> UsageReport:
    """Stored bytes and this day's encodings, with their quotas."""
    return await usage.report(tenant)
