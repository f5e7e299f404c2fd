"""What a request, or something the server depends on, can be guilty of; and the one table to HTTP.

EyepieceError                     model_store.errors
├── ModelError, SlideError, …     model_store.errors, encoders.errors
└── ServerError
    ├── InternalError             a bug
    ├── RequestError              the caller's to mend
    │   ├── InvalidRequest, Unauthorized, InsufficientScope, NotFound, NoPixels, MethodNotAllowed
    │   ├── SlideNotReady, SlideFailed, RecordUnreadable, WrongConversation, ConversationDamaged
    │   ├── RegionNotReady, RegionFailed, ReportInterrupted
    │   ├── RequestInFlight, IdempotencyKeyReused
    │   ├── QuestionTooLong, BodyTooLarge, BodyTooSlow, HeadTooLarge, HeadTooSlow, MalformedRequest
    │   ├── RangeNotSatisfiable, NoLevels
    │   ├── WrongOffset, UploadLocked, UploadGone, UploadIncomplete, UploadTooLong      a resumable upload
    │   ├── ChecksumMismatch, UnknownChecksum, WrongContentType, UnknownTusVersion
    │   ├── NotAcceptable
    │   ├── SeriesDiffers         a pulled series has more, or other, instances than its slide
    │   ├── QuotaExceeded         what the operator grants the tenant is used up
    │   ├── RateLimited           the operator's rate for the tenant or its key is used up for now
    │   └── Overloaded            come back after `retry_after_s`
    └── DependencyError           ours to mend; the caller may try again
        ├── Draining              this process is leaving
        ├── TooManyConnections
        ├── IdentityProviderUnavailable, AuditUnavailable
        ├── SlideReaderLost      the process that reads a slide for viewers
        ├── ArchiveUnavailable, ArchiveRefused, ArchiveAnswerUnusable      an archive that a series is pulled from
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


class InternalError(ServerError):
    """A bug in Eyepiece; the operator finds it in the log under the request's id."""

    code = "internal_error"


class RequestError(ServerError):
    """The caller can mend it."""

    code: ClassVar[str] = "invalid_request"


class InvalidRequest(RequestError):
    """The request is not what this document describes; the detail names the field or parameter."""

    code = "invalid_request"


class Unauthorized(RequestError):
    """No key and no token, or one that is unknown, expired, or meant for another service."""

    code = "unauthorized"


class InsufficientScope(RequestError):
    """The key or token is valid and lacks the scope that this route needs; the detail names it."""

    code = "insufficient_scope"

    def __init__(self, detail: str, scope: str = "") -> None:
        super().__init__(detail)
        self.scope = scope


class NotFound(RequestError):
    """It does not exist for this tenant, whoever else may have it."""

    code = "not_found"


class NoPixels(RequestError):
    """The slide was uploaded as features; there is no picture of it."""

    code = "no_pixels"


class MethodNotAllowed(RequestError):
    """The route exists, the method does not."""

    code = "method_not_allowed"


class SlideNotReady(RequestError):
    """The slide is queued or being encoded."""

    code = "slide_not_ready"


class SlideFailed(RequestError):
    """The slide could not be encoded; its `error` says why."""

    code = "slide_failed"


class RegionNotReady(RequestError):
    """The region is queued or being made."""

    code = "region_not_ready"


class RegionFailed(RequestError):
    """The region could not be made; its `error` says why."""

    code = "region_failed"


class ReportInterrupted(RequestError):
    """The slide was encoded anew while its report was written; nothing was kept. Ask again."""

    code = "report_interrupted"


class WrongConversation(RequestError):
    """The conversation is about another slide."""

    code = "wrong_conversation"


class BodyTooSlow(RequestError):
    """The request body came more slowly than the server's least rate."""

    code = "body_too_slow"


class RecordUnreadable(RequestError):
    """The slide's stored record is not what was written; a new upload of the slide replaces it."""

    code = "damaged_record"


class RecordNewer(RecordUnreadable):
    """A newer release wrote the slide's record, with a meaning that this one does not know."""

    code = "newer_record"


class RequestInFlight(RequestError):
    """A request with the same `Idempotency-Key` is being answered."""

    code = "request_in_flight"


class IdempotencyKeyReused(RequestError):
    """The `Idempotency-Key` came with another request within the last 24 hours."""

    code = "idempotency_key_reused"


class ConversationDamaged(RequestError):
    """What is stored of the conversation cannot be read; delete it and start a new one."""

    code = "damaged_conversation"


class QuestionTooLong(RequestError):
    """The question does not fit into the model's context, or is longer than the server takes."""

    code = "question_too_long"


class BodyTooLarge(RequestError):
    """The request body is larger than the server takes."""

    code = "body_too_large"


class MalformedRequest(RequestError):
    """The request is not valid HTTP, or too many requests came before the first answer."""

    code = "malformed_request"


class RangeNotSatisfiable(RequestError):
    """The range begins beyond the end of the file, which has `size_bytes`."""

    code = "range_not_satisfiable"

    def __init__(self, detail: str, size_bytes: int = 0) -> None:
        super().__init__(detail)
        self.size_bytes = size_bytes


class NoLevels(RequestError):
    """The model is given tiles of the slide, not regions, patches and cells, so there are no levels to show."""

    code = "no_levels"


class HeadTooLarge(RequestError):
    """The address and headers of the request are too large."""

    code = "head_too_large"


class HeadTooSlow(RequestError):
    """The request began and did not come in time."""

    code = "head_too_slow"


class UploadTooLarge(RequestError):
    """The slide is larger than the server takes."""

    code = "slide_too_large"


class WrongOffset(RequestError):
    """The upload has come further, or less far, than the request says; `Upload-Offset` says how far."""

    code = "wrong_offset"

    def __init__(self, detail: str, offset_bytes: int = 0) -> None:
        super().__init__(detail)
        self.offset_bytes = offset_bytes


class UploadLocked(RequestError):
    """Another request is writing to the upload, or is making a slide of it."""

    code = "upload_locked"


class UploadGone(RequestError):
    """The upload has expired, or what was uploaded is no slide."""

    code = "upload_gone"


class UploadIncomplete(RequestError):
    """Not all files of the slide have come to their end."""

    code = "upload_incomplete"


class UploadTooLong(RequestError):
    """More bytes than the upload's length."""

    code = "upload_too_long"


class ChecksumMismatch(RequestError):
    """The bytes are not what `Upload-Checksum` says; they were dropped."""

    code = "checksum_mismatch"


class UnknownChecksum(RequestError):
    """The checksum is of a kind that the server does not compute, or cannot be read."""

    code = "unknown_checksum"


class WrongContentType(RequestError):
    """The body is announced as something else than what is taken here."""

    code = "wrong_content_type"


class NotAcceptable(RequestError):
    """What is asked for is there in another form than those that `Accept` allows."""

    code = "not_acceptable"


class SeriesDiffers(RequestError):
    """The series is a slide already, and has other instances now; a slide does not change."""

    code = "series_differs"


class UnknownTusVersion(RequestError):
    """The request names no version of the tus protocol that the server speaks."""

    code = "unknown_tus_version"


class QuotaExceeded(RequestError):
    """The tenant's quota is used up: bytes stored, or encodings a day."""

    code = "quota_exceeded"


class RateLimited(RequestError):
    """The tenant, or its key, has sent as much as it may in a minute; `Retry-After` says when there is room again."""

    code = "rate_limited"

    def __init__(self, detail: str, *, retry_after_s: int | None = None, limit: dict[str, str] | None = None) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)
        self.limit = limit or {}


class Overloaded(RequestError):
    """Too much at once: a queue is full, or the tenant has as many requests running as it may. Try again later."""

    code = "overloaded"


class DependencyError(ServerError):
    """Something behind the server failed; nothing is lost."""

    code: ClassVar[str] = "dependency_unavailable"


class Draining(DependencyError):
    """This server is shutting down and takes nothing new; another one will answer."""

    code = "draining"


class TooManyConnections(DependencyError):
    """All connections are in use."""

    code = "too_many_connections"


class IdentityProviderUnavailable(DependencyError):
    """The identity provider does not answer, and its keys are not known; API keys are taken meanwhile."""

    code = "identity_provider_unavailable"


class AuditUnavailable(DependencyError):
    """The audit log cannot be written, and this server does nothing that is not in it."""

    code = "audit_unavailable"


class SlideReaderLost(DependencyError):
    """The process that reads the slide ended unexpectedly or gave no answer in time; the next request gets another."""

    code = "slide_reader_lost"


class ArchiveUnavailable(DependencyError):
    """The DICOM archive does not answer, or is busy; the import goes on by itself."""

    code = "archive_unavailable"


class ArchiveRefused(DependencyError):
    """The DICOM archive does not take this server's credentials."""

    code = "archive_refused"


class ArchiveAnswerUnusable(DependencyError):
    """The DICOM archive answers what DICOMweb does not know, or broke off."""

    code = "archive_answer_unusable"


class StorageFull(DependencyError):
    """The slide store is full."""

    code = "storage_full"


class StorageUnavailable(DependencyError):
    """The slide store does not answer."""

    code = "storage_unavailable"


class QueueUnavailable(DependencyError):
    """The cache and queue (Redis) do not answer."""

    code = "queue_unavailable"


class LanguageModelUnavailable(DependencyError):
    """The language model does not answer, or is still starting."""

    code = "language_model_unavailable"


class LanguageModelFailed(DependencyError):
    """The language model refused the request, or broke off its answer."""

    code = "language_model_failed"


class SlideLost(DependencyError):
    """vLLM answered without the slide tokens that it was sent. It says so at the end only: a stream ends with this
    error instead of `done`, and the turn is not remembered."""

    code = "slide_lost"


HTTP_STATUS: dict[str, int] = {
    "invalid_request": 422,
    "unauthorized": 401,
    "insufficient_scope": 403,
    "not_found": 404,
    "no_pixels": 404,
    "method_not_allowed": 405,
    "slide_not_ready": 409,
    "slide_failed": 409,
    "region_not_ready": 409,
    "region_failed": 409,
    "report_interrupted": 409,
    "wrong_conversation": 409,
    "damaged_conversation": 409,
    "request_in_flight": 409,
    "idempotency_key_reused": 422,
    "damaged_record": 409,
    "newer_record": 409,
    "question_too_long": 413,
    "body_too_large": 413,
    "body_too_slow": 408,
    "quota_exceeded": 403,
    "range_not_satisfiable": 416,
    "no_levels": 422,
    "wrong_offset": 409,
    "upload_locked": 423,
    "upload_gone": 410,
    "upload_incomplete": 409,
    "upload_too_long": 413,
    "checksum_mismatch": 460,
    "unknown_checksum": 400,
    "wrong_content_type": 415,
    "not_acceptable": 406,
    "series_differs": 409,
    "unknown_tus_version": 412,
    "malformed_request": 400,
    "head_too_large": 431,
    "head_too_slow": 408,
    "overloaded": 429,
    "rate_limited": 429,
    "unsupported_format": 415,
    "unreadable_slide": 422,
    "missing_mpp": 422,
    "resolution_too_low": 422,
    "no_tissue": 422,
    "slide_too_large": 413,
    "unusable_features": 422,
    "unusable_region": 422,
    "region_too_small": 422,
    "regions_unavailable": 409,
    "evidence_unavailable": 409,
    "unknown_cell": 422,
    "cancelled": 409,
    "draining": 503,
    "too_many_connections": 503,
    "identity_provider_unavailable": 503,
    "audit_unavailable": 503,
    "slide_reader_lost": 503,
    "archive_unavailable": 503,
    "archive_refused": 502,
    "archive_answer_unusable": 502,
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
    return problem_body(error.code, error.detail)


def problem_body(code: str, detail: str) -> dict[str, Any]:
    """The body of a problem with a code of the table."""
    return {
        "type": f"urn:eyepiece:error:{code}",
        "title": code.replace("_", " "),
        "status": HTTP_STATUS[code],
        "code": code,
        "detail": detail,
    }


def openai_error(error: EyepieceError) -> dict[str, Any]:
    """The envelope that OpenAI clients turn into their own exceptions."""
    return openai_error_body(error.code, error.detail)


def openai_error_body(code: str, detail: str) -> dict[str, Any]:
    """The envelope around a code of the table."""
    kind = "invalid_request_error" if HTTP_STATUS[code] < 500 else "server_error"
    return {"error": {"message": detail, "type": kind, "param": None, "code": code}}


def response_headers(error: EyepieceError) -> dict[str, str]:
    """`Retry-After` where waiting helps, `WWW-Authenticate` where a key or a scope is missing, `RateLimit-…` of a
    limit, how far an upload has come."""
    headers: dict[str, str] = dict(error.limit) if isinstance(error, RateLimited) else {}
    if isinstance(error, RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{error.size_bytes}"
    if isinstance(error, WrongOffset):
        headers["Upload-Offset"] = str(error.offset_bytes)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, InsufficientScope):  # RFC 6750, 3.1
        headers["WWW-Authenticate"] = f'Bearer error="insufficient_scope", scope="{error.scope}"'
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is None and http_status(error) == 503:
        retry_after_s = 5
    if retry_after_s is not None:
        headers["Retry-After"] = str(retry_after_s)
    return headers


def utf8_text(text: str) -> str:
    """The text with lone surrogates, which JSON can spell and UTF-8 cannot, as question marks."""
    return text.encode(errors="replace").decode()
