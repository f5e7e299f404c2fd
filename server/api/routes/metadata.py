"""PATCH /v1/slides/{id}: what is said of a slide changes."""

from fastapi import APIRouter

from server.api.access import Tenant
from server.api.contract.errors import OF_EVERY_RECORD, may_raise
from server.api.contract.parameters import SlideId
from server.api.contract.slide_metadata import SlideChanges
from server.api.dependencies import ChangeMetadataDep
from server.api.routes.keyed_route import KeyedRoute
from server.errors import NotFound, StorageFull
from server.slides.public_slide import Slide

router = APIRouter(prefix="/v1/slides", tags=["slides"], route_class=KeyedRoute)


@router.patch("/{slide_id}", responses=may_raise(NotFound, StorageFull, *OF_EVERY_RECORD))
async def change_slide(slide_id: SlideId, body: SlideChanges, tenant: Tenant, story: ChangeMetadataDep) -> Slide:
    """Change what is said of the slide: accession, case, patient reference, stain, body site, labels. What the body
    leaves out stays as it is."""
    return await story.change(tenant, slide_id, body.applied_to)
