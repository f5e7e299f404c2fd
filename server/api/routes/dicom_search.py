"""/v1/dicomweb, searching: which studies, series and instances there are (QIDO-RS, DICOM PS3.18, 10.6)."""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse

from encoders.dicom.searched_attributes import AttributeLevel
from server.api.access import Tenant
from server.api.contract.errors import may_raise
from server.api.contract.headers import answer_headers
from server.api.contract.parameters import UID_FORM, SeriesOfSlide, StudyOfSlide
from server.api.dependencies import FindInstancesDep
from server.api.dicom_accept import require_json
from server.api.dicom_json import DICOM_JSON, attribute
from server.api.dicom_query import FILTERS, FILTERS_PARAMETER, chosen, fields_of, filters_of
from server.api.routes.keyed_route import KeyedRoute, also_takes
from server.errors import InvalidRequest, NotAcceptable
from server.flow.find_instances import FindInstances
from server.slides.instance_search import InstanceQuery

router = APIRouter(prefix="/v1/dicomweb", tags=["dicomweb"], route_class=KeyedRoute)
MOST_RESULTS = 1_000
_UID = re.compile(UID_FORM)


Fields = Annotated[
    list[str] | None,
    Query(
        description="Attributes to send beside the usual ones, by keyword or tag, or `all`; of those that can be "
        "searched for.",
        examples=[["SeriesDescription"]],
    ),
]
Limit = Annotated[
    int,
    Query(ge=1, le=MOST_RESULTS, description="At most so many; `Warning` says when there are more.", examples=[100]),
]
Offset = Annotated[
    int, Query(ge=0, le=2**31, description="How many to pass over, in the order of UIDs.", examples=[100])
]
Fuzzy = Annotated[
    bool,
    Query(
        description="Is not done; `Warning` says so. Names match without regard to case in any way.", examples=[False]
    ),
]
_OF_EVERY_ITEM = {"00080005": attribute("CS", "ISO_IR 192"), "00080056": attribute("CS", "ONLINE")}
_SEARCHES: dict[str, Any] = {
    "dependencies": also_takes(FILTERS, frozenset({"includefield"})),
    "response_class": JSONResponse,
    "response_description": "What matches, in the order of the UIDs.",
    "openapi_extra": {"parameters": [FILTERS_PARAMETER]},
    "responses": {
        200: {
            "content": {
                DICOM_JSON: {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/DicomDataset"}}}
            },
            **answer_headers("Warning"),
        },
        **may_raise(NotAcceptable),
    },
}


@dataclass(frozen=True)
class Search:
    """What every search takes."""

    request: Request
    tenant: str
    story: FindInstances
    fields: tuple[str, ...]
    limit: int
    offset: int
    is_fuzzy: bool

    async def answer(self, level: AttributeLevel, study: str | None = None, series: str | None = None) -> JSONResponse:
        """What matches, of a study or series where one is named."""
        require_json(self.request.headers.get("accept", ""))
        if not all(_UID.fullmatch(uid) for uid in (study, series) if uid is not None):
            raise InvalidRequest("The address names no UID: one has digits and dots, at most 64 together.")
        filters = filters_of(self.request.query_params)
        fields, unknown = fields_of(self.fields, filters)
        found = await self.story.search(self.tenant, InstanceQuery(level, filters, study, series))
        items = [chosen(it.attributes, fields) | _OF_EVERY_ITEM for it in found[self.offset : self.offset + self.limit]]
        left = max(len(found) - self.offset - self.limit, 0)
        warnings = [f"There are {left} additional results that can be requested"] if left else []
        if self.is_fuzzy:
            warnings.append("The fuzzymatching parameter is not supported. Only literal matching has been performed")
        if unknown:
            warnings.append(f"{len(unknown)} of the attributes in includefield are not supported and left out")
        headers = {"Warning": f'299 eyepiece "{". ".join(warnings)}."'} if warnings else {}
        return JSONResponse([dict(sorted(it.items())) for it in items], media_type=DICOM_JSON, headers=headers)


async def _search(
    request: Request,
    tenant: Tenant,
    story: FindInstancesDep,
    includefield: Fields = None,
    limit: Limit = MOST_RESULTS,
    offset: Offset = 0,
    fuzzymatching: Fuzzy = False,
) -> Search:
    return Search(request, tenant, story, tuple(includefield or ()), limit, offset, fuzzymatching)


SearchDep = Annotated[Search, Depends(_search)]


@router.get("/studies", **_SEARCHES)
async def search_studies(search: SearchDep) -> JSONResponse:
    """QIDO-RS: the studies that have slides. Only slides that came as DICOM are found, when they are slides."""
    return await search.answer("study")


@router.get("/series", **_SEARCHES)
async def search_series(search: SearchDep) -> JSONResponse:
    """QIDO-RS: the series that are slides, each with what its study has."""
    return await search.answer("series")


@router.get("/instances", **_SEARCHES)
async def search_instances(search: SearchDep) -> JSONResponse:
    """QIDO-RS: the instances that slides are made of. Labels, overviews and thumbnails are not among them."""
    return await search.answer("instance")


@router.get("/studies/{study_uid}/series", **_SEARCHES)
async def search_series_of_study(study_uid: StudyOfSlide, search: SearchDep) -> JSONResponse:
    """QIDO-RS: the series of a study that are slides."""
    return await search.answer("series", study_uid)


@router.get("/studies/{study_uid}/instances", **_SEARCHES)
async def search_instances_of_study(study_uid: StudyOfSlide, search: SearchDep) -> JSONResponse:
    """QIDO-RS: the instances of a study's slides."""
    return await search.answer("instance", study_uid)


@router.get("/studies/{study_uid}/series/{series_uid}/instances", **_SEARCHES)
async def search_instances_of_series(
    study_uid: StudyOfSlide, series_uid: SeriesOfSlide, search: SearchDep
) -> JSONResponse:
    """QIDO-RS: the instances of a slide."""
    return await search.answer("instance", study_uid, series_uid)
