"""What a request, or something the server depends on, can be guilty of; and the one table to HTTP.

EyepieceError                     model_store.errors
├── ModelError, SlideError, …     model_store.errors, encoders.errors
└── ServerError
    ├── RequestError              the caller's to mend
    │   ├── InvalidRequest, Unauthorized, NotFound, MethodNotAllowed
    │   ├── SlideNotReady, SlideFailed, RecordUnreadable, WrongConversation, ConversationDamaged
    │   ├── QuestionTooLong, BodyTooLarge, BodyTooSlow, HeadTooLarge, HeadTooSlow, MalformedRequest
    │   ├── RangeNotSatisfiable
    │   ├── QuotaExceeded         what the operator grants the tenant is used up
    │   └── Overloaded            come back after `retry_after_s`
    └── DependencyError           ours to mend; the caller may try again
        ├── Draining              this process is leaving
        ├── TooManyConnections
        ├── StorageFull, StorageUnavailable, QueueUnavailable
        └── LanguageModelUnavailable, LanguageModelFailed, SlideLost

Flow: request → RequestError; store, Redis, vLLM → DependencyError, translated where the foreign call is made.
On the wire: RFC 9457 `application/problem+json`, on `/v1/chat/completions` the OpenAI envelope.
"""

from typing import Any, ClassVar

from model_store.errors import EyepieceError

PROBLEM_JSON = "application/problem+json"


class ServerError(EyepieceError):
    """An error of the HTTP side; `retry_after_s` becomes the header `Retry-After`."""

    def __init__(self, detail: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class RequestError(ServerError):
    """The caller can mend it."""

    code: ClassVar[str] = "invalid_request"


class InvalidRequest(RequestError):
    """Not what the OpenAPI document describes."""

    code = "invalid_request"


class Unauthorized(RequestError):
    """No key, an unknown key, or an expired one."""

    code = "unauthorized"


class NotFound(RequestError):
    """It does not exist for this tenant, whoever else may have it."""

    code = "not_found"


class MethodNotAllowed(RequestError):
    """The route exists, the method does not."""

    code = "method_not_allowed"


class SlideNotReady(RequestError):
    """The slide is queued or being encoded."""

    code = "slide_not_ready"


class SlideFailed(RequestError):
    """The slide could not be encoded; its `error` says why."""

    code = "slide_failed"


class WrongConversation(RequestError):
    """The conversation is about another slide."""

    code = "wrong_conversation"


class BodyTooSlow(RequestError):
    """A request body, an upload above all, that came more slowly than the least rate."""

    code = "body_too_slow"


class RecordUnreadable(RequestError):
    """The slide's stored record is not what was written; a new upload of the slide replaces it."""

    code = "damaged_record"


class RecordNewer(RecordUnreadable):
    """A newer release wrote the slide's record, with a meaning that this one does not know."""

    code = "newer_record"


class ConversationDamaged(RequestError):
    """What is kept of the conversation is not what was written."""

    code = "damaged_conversation"


class QuestionTooLong(RequestError):
    """The question, or the conversation with it, does not fit."""

    code = "question_too_long"


class BodyTooLarge(RequestError):
    """A request body beyond its limit."""

    code = "body_too_large"


class MalformedRequest(RequestError):
    """Not HTTP, or more of it at once than is answered."""

    code = "malformed_request"


class RangeNotSatisfiable(RequestError):
    """A range of a file that has `size_bytes`, from beyond its end."""

    code = "range_not_satisfiable"

    def __init__(self, detail: str, size_bytes: int = 0) -> None:
        super().__init__(detail)
        self.size_bytes = size_bytes


class HeadTooLarge(RequestError):
    """A request's address and headers beyond their limit."""

    code = "head_too_large"


class HeadTooSlow(RequestError):
    """A request that began and did not come in time."""

    code = "head_too_slow"


class UploadTooLarge(RequestError):
    """A slide file beyond the configured size."""

    code = "slide_too_large"


class QuotaExceeded(RequestError):
    """More than the operator grants this tenant: bytes stored, or encodings a day."""

    code = "quota_exceeded"


class Overloaded(RequestError):
    """A bounded queue is full."""

    code = "overloaded"


class DependencyError(ServerError):
    """Something behind the server failed; nothing is lost."""

    code: ClassVar[str] = "dependency_unavailable"


class Draining(DependencyError):
    """This process is about to end and takes nothing new; another one will answer."""

    code = "draining"


class TooManyConnections(DependencyError):
    """All connections are in use."""

    code = "too_many_connections"


class StorageFull(DependencyError):
    """The slide store has no room."""

    code = "storage_full"


class StorageUnavailable(DependencyError):
    """The slide store does not answer."""

    code = "storage_unavailable"


class QueueUnavailable(DependencyError):
    """Redis does not answer."""

    code = "queue_unavailable"


class LanguageModelUnavailable(DependencyError):
    """vLLM does not answer, or is not warm."""

    code = "language_model_unavailable"


class LanguageModelFailed(DependencyError):
    """vLLM refused or broke off a request that should have been good."""

    code = "language_model_failed"


class SlideLost(DependencyError):
    """vLLM answered without the slide tokens that it was sent. It says so at the end only: a stream ends with this
    error instead of `done`, and the turn is not remembered."""

    code = "slide_lost"


HTTP_STATUS: dict[str, int] = {
    "invalid_request": 422,
    "unauthorized": 401,
    "not_found": 404,
    "method_not_allowed": 405,
    "slide_not_ready": 409,
    "slide_failed": 409,
    "wrong_conversation": 409,
    "damaged_conversation": 409,
    "damaged_record": 409,
    "newer_record": 409,
    "question_too_long": 413,
    "body_too_large": 413,
    "body_too_slow": 408,
    "quota_exceeded": 403,
    "range_not_satisfiable": 416,
    "malformed_request": 400,
    "head_too_large": 431,
    "head_too_slow": 408,
    "overloaded": 429,
    "unsupported_format": 415,
    "unreadable_slide": 422,
    "missing_mpp": 422,
    "resolution_too_low": 422,
    "no_tissue": 422,
    "slide_too_large": 413,
    "unusable_features": 422,
    "cancelled": 409,
    "draining": 503,
    "too_many_connections": 503,
    "storage_full": 507,
    "storage_unavailable": 503,
    "queue_unavailable": 503,
    "language_model_unavailable": 503,
    "language_model_failed": 502,
    "slide_lost": 502,
    "dependency_unavailable": 503,
    "model_unavailable": 503,
    "internal_error": 500,
}


def http_status(error: EyepieceError) -> int:
    """The status of an error; every code of the tree is in the table (a test proves it)."""
    return HTTP_STATUS[error.code]


def problem(error: EyepieceError) -> dict[str, Any]:
    """RFC 9457 body; `code` is stable, `detail` is one sentence that says what to do."""
    status = http_status(error)
    return {
        "type": f"urn:eyepiece:error:{error.code}",
        "title": error.code.replace("_", " "),
        "status": status,
        "code": error.code,
        "detail": error.detail,
    }


def openai_error(error: EyepieceError) -> dict[str, Any]:
    """The envelope that OpenAI clients turn into their own exceptions."""
    kind = "invalid_request_error" if http_status(error) < 500 else "server_error"
    return {"error": {"message": error.detail, "type": kind, "param": None, "code": error.code}}


def response_headers(error: EyepieceError) -> dict[str, str]:
    """`Retry-After` where waiting helps, `WWW-Authenticate` where a key is missing."""
    headers: dict[str, str] = {}
    if isinstance(error, RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{error.size_bytes}"
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is None and http_status(error) == 503:
        retry_after_s = 5
    if retry_after_s is not None:
        headers["Retry-After"] = str(retry_after_s)
    return headers


def utf8_text(text: str) -> str:
    """The text with lone surrogates, which JSON can spell and UTF-8 cannot, as question marks."""
    return text.encode(errors="replace").decode()
