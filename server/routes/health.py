"""/livez, /readyz and /metrics: for load balancers and Prometheus, without a key and without anything of a tenant."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from server.parts import WithParts
from server.readiness import Readiness

router = APIRouter(tags=["health"])


@router.get("/livez")
async def alive() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


@router.get("/readyz")
async def ready(request: Request) -> JSONResponse:
    """200 when warm and every dependency answers, else 503."""
    readiness: Readiness = request.app.state.readiness
    return JSONResponse(readiness.report(), status_code=200 if readiness.ready else 503)


@router.get("/metrics")
async def metrics(parts: WithParts) -> Response:
    """Prometheus text."""
    return Response(generate_latest(parts.metrics.registry), media_type=CONTENT_TYPE_LATEST)
