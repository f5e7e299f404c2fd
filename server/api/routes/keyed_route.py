"""The class of all routes under /v1: the key, then the query, and only then the body."""

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from server.api.access import note_tenant
from server.api.dependencies import parts_of
from server.errors import InvalidRequest, utf8_text


class KeyedRoute(APIRoute):
    """FastAPI reads and validates a body before it asks any dependency: whoever has no key would be served that far."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, behind the checks."""
        handle = super().get_route_handler()
        known = frozenset(_query_parameters(self.dependant))

        async def handle_keyed(request: Request) -> Response:
            parts = parts_of(request)
            await note_tenant(request, parts.keys, parts.settings)
            _refuse_other_parameters(request, known)
            return await handle(request)

        return handle_keyed


def _query_parameters(dependant: Dependant) -> Iterator[str]:
    """Those of a handler and of all that it depends on."""
    yield from (parameter.alias for parameter in dependant.query_params)
    for needed in dependant.dependencies:
        yield from _query_parameters(needed)


def _refuse_other_parameters(request: Request, known: frozenset[str]) -> None:
    """A parameter that is misspelled or repeated must not be ignored: the answer would be to another question."""
    if not request.scope["query_string"]:
        return
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        takes = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
        raise InvalidRequest(utf8_text(f"This address has no query parameter {unknown[0][:40]!r}; {takes}."))
    names = [name for name, _ in request.query_params.multi_items()]
    if len(names) > len(set(names)):  # only the last would be heard
        repeated = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f"The query parameter {repeated!r} comes twice; send it once.")
