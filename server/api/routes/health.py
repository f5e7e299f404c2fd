"""/livez, /readyz and /metrics: for load balancers and Prometheus, without a key and without anything of a tenant."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from server.api.dependencies import MetricsDep, ReadinessDep
from server.upkeep.readiness import Capability, ModelState

router = APIRouter(tags=["health"])
# Not sent at all then, never sent as null.
_OFTEN_ABSENT: Any = None


ReadinessStatus = Literal["ready", "not_ready", "draining"]


class Liveness(BaseModel):
    """The process answers."""

    status: Literal["alive"]


class Capabilities(BaseModel):
    """What requests would be served now, whatever else is away."""

    slides: bool = Field(description="Lists and downloads.")
    uploads: bool
    questions: bool


class ReadinessReport(BaseModel):
    """What the server depends on, as it was seen a moment ago."""

    status: ReadinessStatus
    checks: dict[str, str] = Field(
        description="By dependency (`redis`, `store`, `language_model`): `ok`, `unavailable`, `full`, `read_only`. "
        "`language_model` is `ok` while at least one model answers."
    )
    models: dict[str, ModelState] = Field(
        description="By model: `ok`, or `unavailable` while its language model is away.", examples=[{"demo": "ok"}]
    )
    capabilities: Capabilities
    workers_ready: int = Field(description="Number of warm encoder workers; slides that are ready need none.")
    crash_loops: dict[str, str] = Field(
        _OFTEN_ABSENT,
        description="Processes of `eyepiece up` that keep exiting, and how; absent when none does.",
    )


@router.get("/livez")
async def check_liveness() -> Liveness:
    """The process answers."""
    return Liveness(status="alive")


@router.get(
    "/readyz",
    response_model=ReadinessReport,
    response_description="Ready.",
    responses={503: {"model": ReadinessReport, "description": "Not ready, or not for what was asked."}},
)
async def check_readiness(
    readiness: ReadinessDep,
    capability: Annotated[
        Capability | None,
        Query(alias="for", description="Check readiness for one kind of request instead of everything."),
    ] = None,
) -> JSONResponse:
    """200 when everything works, or all but some of several models; else 503. With `for` whether requests of that kind
    do: `slides` (lists and downloads), `uploads`, `questions`."""
    is_ready = readiness.ready if capability is None else readiness.can(capability)
    return JSONResponse(readiness.report(), status_code=200 if is_ready else 503)


@router.get("/metrics", response_class=PlainTextResponse, response_description="Prometheus' text format.")
async def get_metrics(metrics: MetricsDep) -> Response:
    """What Prometheus scrapes."""
    return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)
