"""/v1/usage: what the tenant has stored and had encoded, how much it may, and how its slides stand in the queue."""

from fastapi import APIRouter
from pydantic import Field

from server.api.access import Tenant
from server.api.dependencies import JobsDep, UsageDep
from server.api.routes.keyed_route import KeyedRoute
from server.slides.usage import QuotaReport

router = APIRouter(prefix="/v1", tags=["usage"], route_class=KeyedRoute)


class UsageReport(QuotaReport):
    """What the tenant has used, how much it may, and what it waits for."""

    slides_running: int = Field(description="Slides being encoded.")
    slides_waiting: int = Field(description="Slides waiting to be encoded.")
    slides_ahead: int = Field(
        description="Slides of others that are taken before the first one that waits, or before one that is uploaded "
        "now where none waits; if no more come. How long that takes depends on their sizes."
    )


@router.get("/usage")
async def get_usage(tenant: Tenant, usage: UsageDep, jobs: JobsDep) -> UsageReport:
    """Stored bytes and this day's encodings, with their quotas, and how the tenant's slides stand in the queue."""
    report, standing = await usage.report(tenant), await jobs.standing(tenant)
    return UsageReport(
        **report.model_dump(),
        slides_running=standing.running,
        slides_waiting=standing.waiting,
        slides_ahead=standing.ahead,
    )
