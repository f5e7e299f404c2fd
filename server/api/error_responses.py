"""Errors on the wire: whatever was raised becomes problem+json, or the OpenAI envelope on its routes."""

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import Scope

from model_store.errors import EyepieceError
from server.api.dependencies import refusals_of
from server.api.request_log import REQUEST_ID_HEADER, request_id_of
from server.api.response_headers import SAFE_HEADERS
from server.api.routes.all_routers import ROUTERS
from server.api.routes.chat import speaks_openai
from server.asking.beams import BEAM_OPTIONS, no_beams
from server.errors import (
    PROBLEM_JSON,
    BodyTooLarge,
    BodyTooSlow,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    QueueUnavailable,
    http_status,
    openai_error,
    problem,
    response_headers,
    utf8_text,
)

log = structlog.get_logger(__name__)


def add_error_responses(app: FastAPI) -> None:
    """Register one handler per kind of exception that can reach the edge."""
    app.add_exception_handler(EyepieceError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _framework)
    app.add_exception_handler(RedisError, _redis)
    app.add_exception_handler(Exception, _unexpected)


def error_response(request: Request, error: EyepieceError) -> JSONResponse:
    """The response for an error on this request's route."""
    status, headers = http_status(error), response_headers(error)
    if speaks_openai(request.scope["path"]):  # request.url would parse the Host header, which may be anything
        return JSONResponse(openai_error(error), status, headers)
    named = {"request_id": request_id_of(request.scope)}
    return JSONResponse(problem(error) | named, status, headers, media_type=PROBLEM_JSON)


async def _ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, EyepieceError)
    return await _in_its_pace(request, error)


async def _in_its_pace(request: Request, error: EyepieceError) -> JSONResponse:
    """The response, once it is this tenant's time to be told again that it wants too much."""
    tenant = getattr(request.state, "tenant", None)
    if isinstance(error, Overloaded) and tenant is not None:
        await refusals_of(request).wait(tenant)
    return error_response(request, error)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """Say which field is wrong and why, never what was sent: it may be a question."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return error_response(request, InvalidRequest("The request body is not valid JSON."))
    if first["type"] == "extra_forbidden" and first["loc"][-1] in BEAM_OPTIONS:
        return error_response(request, no_beams([str(first["loc"][-1])]))
    where = ".".join(str(part) for part in first["loc"] if part != "body")[:100] or "body"
    return error_response(request, InvalidRequest(utf8_text(f"{where}: {first['msg']}.")))


async def _framework(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    told = _FRAMEWORK_ERRORS.get(error.status_code, InvalidRequest(utf8_text(str(error.detail))))
    response = await _in_its_pace(request, told)
    response.headers.update(error.headers or {})
    if error.status_code == 405:  # the framework names the methods of the first route only
        response.headers["Allow"] = ", ".join(sorted(_methods_at(request.scope)))
    return response


def _methods_at(scope: Scope) -> set[str]:
    """Every method that the address takes. Where a route spells it out, what others would take it for is another
    address: /v1/uploads/slides is no upload."""
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, Route)]
    at_address = [route for route in routes if route.matches(dict(scope))[0] is not Match.NONE]
    spelled_out = [route for route in at_address if route.path == scope["path"]]
    return {method for route in spelled_out or at_address for method in route.methods or ()}


_FRAMEWORK_ERRORS: dict[int, EyepieceError] = {
    400: InvalidRequest("The request body cannot be read; send JSON in UTF-8."),
    404: NotFound("There is nothing at this address; see /docs for the routes."),
    405: MethodNotAllowed("This address does not support this method; see /docs for the routes."),
    408: BodyTooSlow("The request body arrived too slowly and was dropped; send it again over a faster line."),
    413: BodyTooLarge("The request body is too large."),
    429: Overloaded("Too many large requests at once; send this one again shortly.", retry_after_s=2),
}


async def _redis(request: Request, error: Exception) -> JSONResponse:
    log.warning("redis_unavailable", error=type(error).__name__)
    return error_response(request, QueueUnavailable("The cache and queue do not answer; try again shortly."))


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    request_id = request_id_of(request.scope)
    log.error("unexpected_error", exc_info=error, route=_route(request), method=request.method, request_id=request_id)
    response = error_response(request, InternalError("This is a bug in Eyepiece; the operator finds it in the log."))
    response.headers[REQUEST_ID_HEADER] = request_id  # this handler stands outside all middleware
    response.headers.update(SAFE_HEADERS)
    return response


def _route(request: Request) -> str:
    """The route's template: the path itself would hold ids."""
    return str(getattr(request.scope.get("route"), "path", "unknown"))
