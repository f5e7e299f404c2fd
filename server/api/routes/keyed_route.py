"""The class of all routes under /v1: the key or token and its scope, then the query, and only then the body."""

from collections.abc import Callable, Collection, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import Depends, Request, Response, params
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.types import Message, Receive, Scope, Send

from server.admission.rate_limits import Counted, RatePace
from server.api.access import note_caller
from server.api.audited import begin, recorded
from server.api.dependencies import parts_of
from server.api.idempotency import answer_once
from server.api.slide_names import resolve_slide
from server.errors import InvalidRequest, utf8_text
from server.identity.access_scopes import AccessScope
from server.to_the_end import to_the_end

# In an operation of FastAPI's document, for server.api.contract.document to say it in OpenAPI's words.
SCOPE_OF_OPERATION = "x-scope"


@dataclass(frozen=True)
class _Needed:
    """Says which scope a route needs."""

    scope: AccessScope | None
    counted: Counted | None

    def __call__(self) -> None:
        """A dependency has to be one; `KeyedRoute` takes it out."""


def needs(scope: AccessScope | None, counted: Counted | None = None) -> list[params.Depends]:
    """For `dependencies=` of a route: the scope that it needs, None for any credential that is valid; and what it
    counts as beside a request. A route that does not say needs `slides:read` to look and `slides:write` to change
    something."""
    return [Depends(_Needed(scope, counted))]


@dataclass(frozen=True)
class _DoneOnce:
    """Says that a route takes an `Idempotency-Key`."""

    def __call__(self) -> None:
        """As above."""


def done_once() -> list[params.Depends]:
    """For `dependencies=` of a route about a slide that takes an `Idempotency-Key` (server.api.idempotency); its
    answer, unless it streams, is remembered."""
    return [Depends(_DoneOnce())]


@dataclass(frozen=True)
class _AlsoTakes:
    """Names query parameters that the handler reads from the request itself; nothing is left to do then."""

    names: frozenset[str]
    lists: frozenset[str]

    async def __call__(self) -> None:
        """KeyedRoute knows them."""


def also_takes(names: frozenset[str], lists: frozenset[str]) -> list[params.Depends]:
    """For `dependencies=` of a route whose query parameters are too many to be arguments; `lists` may be repeated."""
    return [Depends(_AlsoTakes(names, lists))]


class KeyedRoute(APIRoute):
    """FastAPI reads and validates a body before it asks any dependency: whoever has no key would be served that far.

    What a route says of itself stands among its dependencies, for FastAPI has no other place for it, and is taken out
    of them: it solves each with every request, and a first token waits for that."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        dependencies: list[params.Depends] = list(options.pop("dependencies", None) or ())
        said = [it.dependency for it in dependencies]
        needed = [it for it in said if isinstance(it, _Needed)]
        self._counted = needed[-1].counted if needed else None
        self._also = [it for it in said if isinstance(it, _AlsoTakes)]
        self._is_done_once = any(isinstance(it, _DoneOnce) for it in said)
        others = [it for it in dependencies if not isinstance(it.dependency, _Needed | _DoneOnce | _AlsoTakes)]
        super().__init__(path, endpoint, dependencies=others, **options)
        self._scope = needed[-1].scope if needed else _scope_of(self.methods or ())
        self.openapi_extra = {**(self.openapi_extra or {}), SCOPE_OF_OPERATION: self._scope or ""}

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, behind the checks."""
        handle = super().get_route_handler()
        known = frozenset(_query_parameters(self.dependant)).union(*(it.names for it in self._also))
        lists = frozenset[str]().union(*(it.lists for it in self._also))

        async def handle_keyed(request: Request) -> Response:
            parts = parts_of(request)
            await note_caller(request, parts.credentials, parts.settings, self._scope)
            limit = await parts.rates.admit(request.state.tenant, request.state.caller.digest, self._counted)
            _refuse_other_parameters(request, known, lists)
            await resolve_slide(request)  # what is done next is to the slide itself, and logged so
            await begin(request, parts.audit if self._scope is not None else None)
            if self._is_done_once:
                response = await answer_once(request, parts.replies, handle)
            elif self._counted == "upload_bytes":
                response = await _count_upload(request, parts.rates, handle)
            else:
                response = await handle(request)
            response.headers.update(limit)
            return response

        return handle_keyed

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Starlette's way into a route: what reaches anything of a tenant is in the audit log where there is one."""
        parts = parts_of(Request(scope))
        if parts.audit is None or self._scope is None:
            await super().handle(scope, receive, send)
            return
        await recorded(parts.audit, parts.settings.audit_questions, super().handle, scope, receive, send)


def _scope_of(methods: Collection[str]) -> AccessScope:
    """The scope that a route needs which does not say."""
    return "slides:read" if set(methods) <= {"GET", "HEAD"} else "slides:write"


async def _count_upload(
    request: Request, rates: RatePace, handle: Callable[[Request], Coroutine[Any, Any, Response]]
) -> Response:
    """The answer of `handle`; however that goes, the bytes that have come are counted."""
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        return message

    try:
        return await handle(Request(request.scope, receive))
    finally:
        await to_the_end(rates.count_uploaded(request.state.tenant, request.state.caller.digest, received))


def _query_parameters(dependant: Dependant) -> Iterator[str]:
    """Those of a handler and of all that it depends on."""
    yield from (parameter.alias for parameter in dependant.query_params)
    for needed in dependant.dependencies:
        yield from _query_parameters(needed)


def _refuse_other_parameters(request: Request, known: frozenset[str], lists: frozenset[str]) -> None:
    """A parameter that is misspelled or repeated must not be ignored: the answer would be to another question."""
    if not request.scope["query_string"]:
        return
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        takes = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
        raise InvalidRequest(utf8_text(f"This address has no query parameter {unknown[0][:40]!r}; {takes}."))
    names = [name for name, _ in request.query_params.multi_items() if name not in lists]
    if len(names) > len(set(names)):  # only the last would be heard
        repeated = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f"The query parameter {repeated!r} comes twice; send it once.")
