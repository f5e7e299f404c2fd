"""/livez, /readyz and /metrics: for load balancers and Prometheus, without a key and without anything of a tenant."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from server.api.dependencies import MetricsDep, ReadinessDep
from server.upkeep.readiness import Capability

router = APIRouter(tags=["health"])


@router.get("/livez")
async def alive() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


@router.get("/readyz")
async def ready(
    readiness: ReadinessDep,
    capability: Annotated[
        Capability | None, Query(alias="for", description="Ask about one kind of request instead of everything.")
    ] = None,
) -> JSONResponse:
    """200 when everything works, else 503; with `for` whether requests of that kind do: `slides` (lists and downloads),
    `uploads`, `questions`."""
    is_ready = readiness.ready if capability is None else readiness.can(capability)
    return JSONResponse(readiness.report(), status_code=200 if is_ready else 503)


@router.get("/metrics")
async def metrics(metrics: MetricsDep) -> Response:
    """Prometheus text."""
    return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)
