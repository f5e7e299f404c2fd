"""Slides by the names that requests give them: a slide's id, or `dicom:` and the UID of its series."""

from fastapi import Request

from server.api.dependencies import parts_of, receive_series
from server.slides.series_index import SERIES_PREFIX


async def slide_id_of(request: Request, name: str) -> str:
    """The id of the slide that a request of a known tenant calls `name`; whether there is such a slide is not said.

    Raises:
        NotFound: no slide is that series; the sentence says whether it waits, and for what.
    """
    if not name.startswith(SERIES_PREFIX):
        return name
    return await receive_series(parts_of(request)).require_slide(request.state.tenant, name.removeprefix(SERIES_PREFIX))


async def resolve_slide(request: Request) -> None:
    """A slide that the request's address names by its series is named by its id from here on; raises as slide_id_of."""
    name = request.path_params.get("slide_id")
    if name is not None:
        request.path_params["slide_id"] = await slide_id_of(request, name)
