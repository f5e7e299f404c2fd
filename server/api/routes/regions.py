"""/v1/slides/{id}/regions: draw a region on a slide, and see whether it can be asked about."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import Field

from server.api.access import Tenant
from server.api.contract.errors import OF_EVERY_DRAWING, OF_EVERY_RECORD, may_raise
from server.api.contract.headers import answer_headers
from server.api.contract.parameters import RegionId, SlideId
from server.api.dependencies import DrawRegionDep, ModelsDep
from server.api.region_shapes import RegionShape, drawn_outline
from server.api.routes.keyed_route import KeyedRoute, needs
from server.api.routes.slides import RecordOfModel
from server.errors import NotFound, Overloaded, QuotaExceeded, SlideFailed, SlideNotReady
from server.slides.public_region import Region

router = APIRouter(prefix="/v1/slides", tags=["regions"], route_class=KeyedRoute)
_RETRY_S = "1"


class RegionRequest(RegionShape):
    """What to draw, and on which model's tiles."""

    model: str | None = Field(
        None,
        max_length=64,
        description="A model's `id` in `GET /v1/models`. Defaults to the first model.",
        examples=["demo"],
    )


@router.post(
    "/{slide_id}/regions",
    dependencies=needs("ask"),
    response_model=Region,
    response_description="The region can be asked about.",
    responses={
        200: answer_headers("Location"),
        202: {
            "model": Region,
            "description": "The region is being made, which takes about a second; a question about it waits.",
            **answer_headers("Location", "Retry-After"),
        },
        **may_raise(
            NotFound,
            *OF_EVERY_RECORD,
            SlideNotReady,
            SlideFailed,
            *OF_EVERY_DRAWING,
            QuotaExceeded,
            Overloaded,
        ),
    },
)
async def draw_region(slide_id: SlideId, body: RegionRequest, tenant: Tenant, story: DrawRegionDep) -> JSONResponse:
    """Draw a region on a slide that is ready, to ask about it with `region` of a question.

    A tile belongs to it when its centre lies inside. The region is made from the tiles' stored features, so no pixel is
    read. The same tiles give the same region, whoever draws them and however often. A slide keeps a bounded number of
    regions; beyond it those go that were not used for longest."""
    region = await story.draw(tenant, slide_id, await drawn_outline(body), body.model)
    query = "" if body.model is None else f"?model={region.model}"  # another model has no such region
    headers = {"Location": f"/v1/slides/{region.slide_id}/regions/{region.region_id}{query}"}
    is_through = region.status in ("ready", "failed")
    return JSONResponse(
        region.model_dump(mode="json"),
        200 if is_through else 202,
        headers if is_through else headers | {"Retry-After": _RETRY_S},
    )


@router.get(
    "/{slide_id}/regions/{region_id}",
    dependencies=needs("ask"),
    responses=may_raise(NotFound, *OF_EVERY_RECORD, Overloaded),
)
async def get_region(record: RecordOfModel, region_id: RegionId, story: DrawRegionDep, models: ModelsDep) -> Region:
    """A region as it stands, which was drawn on this model's tiles."""
    return await story.show(record, models.named(record.model or None), region_id)
