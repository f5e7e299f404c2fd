"""The errors of the OpenAPI document: each status of a route, and its codes, from the one table in `server.errors`."""

import inspect
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from encoders.errors import RegionsUnavailable, RegionTooSmall, UnusableRegion
from model_store.errors import EyepieceError
from server.api.contract.headers import RATE_LIMIT, header_references
from server.errors import (
    HTTP_STATUS,
    PROBLEM_JSON,
    AuditUnavailable,
    BodyTooLarge,
    BodyTooSlow,
    Draining,
    HeadTooLarge,
    HeadTooSlow,
    IdempotencyKeyReused,
    IdentityProviderUnavailable,
    InsufficientScope,
    InternalError,
    InvalidRequest,
    LanguageModelFailed,
    LanguageModelUnavailable,
    MalformedRequest,
    NotFound,
    Overloaded,
    QuestionTooLong,
    QueueUnavailable,
    QuotaExceeded,
    RateLimited,
    RecordNewer,
    RecordUnreadable,
    RegionFailed,
    RegionNotReady,
    RequestInFlight,
    SlideFailed,
    SlideLost,
    SlideNotReady,
    StorageFull,
    StorageUnavailable,
    TooManyConnections,
    Unauthorized,
    openai_error_body,
    problem_body,
)

Responses = dict[int | str, dict[str, Any]]
# Told before a route is known, so always as problems.
OF_EVERY_CONNECTION = (MalformedRequest, HeadTooSlow, HeadTooLarge, TooManyConnections)
OF_EVERY_ROUTE = (InternalError,)
# Keys are looked up in the store, counters and queues in Redis.
OF_EVERY_KEYED_ROUTE = (
    Unauthorized,
    InsufficientScope,
    RateLimited,
    InvalidRequest,
    IdentityProviderUnavailable,
    AuditUnavailable,
    Draining,
    StorageUnavailable,
    QueueUnavailable,
)
OF_EVERY_JSON_BODY = (BodyTooLarge, BodyTooSlow, Overloaded)
OF_EVERY_KEY = (RequestInFlight, IdempotencyKeyReused)
OF_EVERY_RECORD = (RecordUnreadable, RecordNewer)
OF_EVERY_DRAWING = (RegionsUnavailable, UnusableRegion, RegionTooSmall, StorageFull)
# In both dialects.
OF_EVERY_QUESTION = (
    NotFound,
    *OF_EVERY_RECORD,
    SlideNotReady,
    SlideFailed,
    *OF_EVERY_DRAWING,
    RegionNotReady,
    RegionFailed,
    QuotaExceeded,
    QuestionTooLong,
    LanguageModelUnavailable,
    LanguageModelFailed,
    SlideLost,
)
# Not sent at all then, never sent as null.
_OFTEN_ABSENT: Any = None
# Between FastAPI, which merges dictionaries, and `write_errors`, which makes responses of them.
_DECLARED = "x-codes"
_HEADERS_OF = {
    401: ("WWW-Authenticate",),
    403: ("Retry-After", "WWW-Authenticate"),
    409: ("Retry-After", "Upload-Offset"),
    412: ("Tus-Version",),
    416: ("Content-Range",),
    423: ("Retry-After",),
    429: ("Retry-After", *RATE_LIMIT),
    503: ("Retry-After",),
}


class Problem(BaseModel):
    """An error (RFC 9457). Decide by `code`; show `detail` to people."""

    type: str = Field(
        description="`urn:eyepiece:error:` followed by the code.", examples=["urn:eyepiece:error:not_found"]
    )
    title: str = Field(description="Short title of the error.", examples=["not found"])
    status: int = Field(description="The HTTP status again.", examples=[404])
    code: str = Field(
        description="Stable code for programs. Releases may add codes; today's are "
        + ", ".join(f"`{code}`" for code in sorted(HTTP_STATUS))
        + ".",
        examples=["not_found"],
    )
    detail: str = Field(
        description="What happened and what to do. It never holds a path, a file name or anything about a patient.",
        examples=["There is no slide with this id; upload it to POST /v1/slides first."],
    )
    request_id: str = Field(
        _OFTEN_ABSENT,
        description="`X-Request-Id` again, to find the request in the log; absent where the request could not be read.",
        examples=["6f1c2f9d8b7a4e10"],
    )


class OpenAIErrorDetail(BaseModel):
    """What went wrong, in the fields that OpenAI clients turn into their exceptions."""

    message: str = Field(description="What happened and what to do.")
    type: str = Field(description="`invalid_request_error` or `server_error`.")
    param: None = Field(description="Always null.")
    code: str = Field(description="The code that a `Problem` would have.", examples=["slide_not_ready"])


class OpenAIError(BaseModel):
    """An error as OpenAI clients understand it."""

    error: OpenAIErrorDetail


def may_raise(*errors: type[EyepieceError]) -> Responses:
    """For `responses=` of a route: what it can raise beside what every route of its kind can."""
    declared: Responses = {}
    for error in errors:
        response = declared.setdefault(HTTP_STATUS[error.code], {})
        response.setdefault(_DECLARED, {})[error.code] = _meaning(error)
    return declared


def write_errors(responses: dict[str, dict[str, Any]], more: Responses, *, openai: bool) -> dict[str, str]:
    """Make documented responses of what the route, and `more`, may raise; responses of other kinds stay.

    Returns the codes, and what each means.
    """
    meanings: dict[str, str] = {}
    for status, response in more.items():
        responses.setdefault(str(status), {}).setdefault(_DECLARED, {}).update(response[_DECLARED])
    for status, response in responses.items():
        codes: dict[str, str] | None = response.pop(_DECLARED, None)
        if codes is None:
            continue
        meanings |= codes
        told = "\n".join(f"- `{code}`: {meaning}" for code, meaning in codes.items())
        # What stands there already is kept: /readyz answers 503 with its report.
        response["description"] = f"{response['description']}\n{told}" if "content" in response else told
        schema, media_type = ("OpenAIError", "application/json") if openai else ("Problem", PROBLEM_JSON)
        content = response.setdefault("content", {}).setdefault(media_type, {})
        content["schema"] = {"$ref": f"#/components/schemas/{schema}"}
        examples = {code: {"$ref": f"#/components/examples/{_example_name(code, openai)}"} for code in codes}
        content.setdefault("examples", {}).update(examples)
        response.setdefault("headers", {}).update(header_references(*_HEADERS_OF.get(int(status), ())))
    return meanings


def error_examples(meanings: Mapping[str, str]) -> dict[str, Any]:
    """Every error in both dialects, for the components of the document."""
    examples: dict[str, Any] = {}
    for code, meaning in meanings.items():
        examples[_example_name(code, openai=False)] = {"summary": meaning, "value": problem_body(code, meaning)}
        examples[_example_name(code, openai=True)] = {"summary": meaning, "value": openai_error_body(code, meaning)}
    return examples


def _example_name(code: str, openai: bool) -> str:
    return f"openai_{code}" if openai else code


def _meaning(error: type[EyepieceError]) -> str:
    """The first paragraph of its docstring, in one line."""
    return " ".join((inspect.getdoc(error) or "").split("\n\n")[0].split())
