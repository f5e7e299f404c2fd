"""Headers of the OpenAPI document, of answers and of requests, each described once."""

from typing import Any

from server.identity.purpose_of_use import PURPOSE_HEADER, PURPOSES

_ETAG = '"3b1f0c6c"'

ANSWER_HEADERS: dict[str, Any] = {
    "X-Request-Id": {
        "description": "Names this request in the server's log. A client may choose it with the same header: a UUID, "
        "or 16 to 64 lower-case hex digits. It must identify no patient.",
        "schema": {"type": "string", "examples": ["6f1c2f9d8b7a4e10"]},
    },
    "Location": {
        "description": "Path of the slide, or of the upload.",
        "required": True,
        "schema": {"type": "string", "examples": [f"/v1/slides/{'5e' * 32}"]},
    },
    "Retry-After": {
        "description": "Seconds after which asking again makes sense; absent where waiting does not help.",
        "schema": {"type": "integer", "minimum": 0, "examples": [5]},
    },
    "WWW-Authenticate": {
        "description": "With 401, that a key or token is needed; with 403 `insufficient_scope`, the scope it lacks.",
        "schema": {
            "type": "string",
            "pattern": '^Bearer( error="insufficient_scope", scope="[a-z:]+")?$',
            "examples": ["Bearer", 'Bearer error="insufficient_scope", scope="ask"'],
        },
    },
    "Warning": {
        "description": "299 and what was not done as asked: more results than `limit`, attributes that are not known. "
        "Absent otherwise.",
        "schema": {"type": "string"},
    },
    "ETag": {
        "description": "Version of the content, for `If-None-Match` and `If-Range`.",
        "required": True,
        "schema": {"type": "string", "examples": [_ETAG]},
    },
    "Vary": {
        "description": "The picture is for this key, and in the form that `Accept` chose: caches keep others apart.",
        "required": True,
        "schema": {"type": "string", "examples": ["Authorization, Accept"]},
    },
    "Accept-Ranges": {
        "description": "Parts of the file can be asked for with `Range`.",
        "required": True,
        "schema": {"type": "string", "const": "bytes"},
    },
    "Content-Range": {
        "description": "Which bytes of how many these are; `bytes */size` when the range was refused.",
        "required": True,
        "schema": {"type": "string", "examples": ["bytes 0-65535/1048576", "bytes */1048576"]},
    },
    "Content-Disposition": {
        "description": "A file name, made from the slide's id.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Idempotent-Replayed": {
        "description": "The request was not done again: this is its first answer. Absent otherwise.",
        "schema": {"type": "string", "const": "true"},
    },
    "RateLimit-Limit": {
        "description": "Of the tenant's and the key's rate limits the one that is nearest: how much a minute. Absent "
        "where the operator has set none.",
        "schema": {"type": "integer", "minimum": 1, "examples": [600]},
    },
    "RateLimit-Remaining": {
        "description": "How much of it may come now.",
        "schema": {"type": "integer", "minimum": 0, "examples": [593]},
    },
    "RateLimit-Reset": {
        "description": "Seconds until all of it may come again.",
        "schema": {"type": "integer", "minimum": 0, "examples": [1]},
    },
    "Tus-Resumable": {
        "description": "The version of tus that the answer speaks.",
        "required": True,
        "schema": {"type": "string", "const": "1.0.0"},
    },
    "Tus-Version": {
        "description": "The versions of tus that the server speaks.",
        "required": True,
        "schema": {"type": "string", "const": "1.0.0"},
    },
    "Tus-Extension": {
        "description": "What of tus is supported beside its core.",
        "required": True,
        "schema": {"type": "string", "examples": ["creation,checksum"]},
    },
    "Tus-Max-Size": {
        "description": "The largest file that is taken, in bytes.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0, "examples": [68719476736]},
    },
    "Tus-Checksum-Algorithm": {
        "description": "What `Upload-Checksum` may be made with.",
        "required": True,
        "schema": {"type": "string", "examples": ["sha256,sha1"]},
    },
    "Upload-Offset": {
        "description": "How many bytes of the upload are there.",
        "schema": {"type": "integer", "minimum": 0, "examples": [1048576]},
    },
    "Upload-Length": {
        "description": "How many bytes the upload is to have.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1, "examples": [2147483648]},
    },
    "Upload-Metadata": {
        "description": "What the client said of the file when it created the upload.",
        "schema": {"type": "string", "examples": ["filename YmlvcHN5LnN2cw=="]},
    },
    "Upload-Expires": {
        "description": "When the upload is removed if nothing more comes.",
        "schema": {"type": "string", "examples": ["Mon, 30 Nov 2026 17:00:00 GMT"]},
    },
    "Eyepiece-Slide-Id": {
        "description": "The slide that the upload became; absent before that.",
        "schema": {"type": "string", "examples": ["5e" * 32]},
    },
    "X-Turns-Left-Out": {
        "description": "How many of the oldest turns were left out, because the conversation outgrew the model's "
        "context or its training; absent when none was.",
        "schema": {"type": "integer", "minimum": 1, "examples": [2]},
    },
}

RATE_LIMIT = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")

REQUEST_HEADERS: dict[str, Any] = {
    PURPOSE_HEADER: {
        "description": "Why this is done, as a code of HL7's PurposeOfUse, for the audit log.",
        "schema": {"type": "string", "enum": list(PURPOSES), "examples": ["TREAT"]},
    },
    "Idempotency-Key": {
        "description": "Any text of your own for this request, a UUID for instance. The same request sent again with "
        "it within 24 hours is not done again and gets the first answer.",
        "schema": {
            "type": "string",
            "minLength": 1,
            "maxLength": 255,
            "examples": ["0198c2b4-7d3e-7a51-9c1f-2f6d8e4b1a90"],
        },
    },
    "Tus-Resumable": {
        "description": "The version of tus that the client speaks.",
        "required": True,
        "schema": {"type": "string", "pattern": r"^1\.0\.0$", "examples": ["1.0.0"]},
    },
    "Upload-Length": {
        "description": "Size of the file in bytes.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1, "examples": [2147483648]},
    },
    "Upload-Offset": {
        "description": "Where in the file the body begins: behind all that has come.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0, "examples": [1048576]},
    },
    "Upload-Metadata": {
        "description": "Names, each with a text in UTF-8 and Base64, with commas between: `filename`; for a slide of "
        "several files `slide` and `path`; what is said of the slide, under the names of the fields of a Slide.",
        "schema": {"type": "string", "examples": ["filename YmlvcHN5LnN2cw=="]},
    },
    "Upload-Checksum": {
        "description": "`sha256` or `sha1`, a space, and the digest of the body in Base64.",
        "schema": {
            "type": "string",
            "pattern": "^(sha1 [A-Za-z0-9+/]{27}=|sha256 [A-Za-z0-9+/]{43}=)$",
            "examples": ["sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0="],
        },
    },
    "X-HTTP-Method-Override": {
        "description": "The method that is meant: `PATCH` or `DELETE`.",
        "required": True,
        "schema": {"type": "string", "pattern": "^(PATCH|DELETE)$", "examples": ["PATCH"]},
    },
    "If-None-Match": {
        "description": "An `ETag` that the client has: the answer is 304 when it is still the version.",
        "schema": {"type": "string", "examples": [_ETAG]},
    },
    "Accept": {
        "description": "`image/png` for PNG; JPEG where it is welcome at least as much, and for everything else.",
        "schema": {"type": "string", "examples": ["image/png"]},
    },
    "Range": {
        "description": "One range of bytes. What is not understood, and several ranges, give the whole file.",
        "schema": {"type": "string", "examples": ["bytes=0-65535"]},
    },
    "If-Range": {
        "description": "An `ETag`: `Range` holds only while that is the version; otherwise the whole file is sent.",
        "schema": {"type": "string", "examples": [_ETAG]},
    },
}


def answer_headers(*names: str) -> dict[str, Any]:
    """For a response in `responses=` of a route."""
    return {"headers": header_references(*names)}


def unchanged(*names: str) -> dict[str, Any]:
    """A 304, for `responses=` of a route."""
    return {"description": "The client has this version (`If-None-Match`).", **answer_headers(*names)}


def header_references(*names: str) -> dict[str, Any]:
    """Headers of an answer, as references to their descriptions."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def request_headers(*names: str) -> dict[str, Any]:
    """For `openapi_extra=` of a route whose function reads them from the request itself."""
    return {"parameters": [{"$ref": f"#/components/parameters/{name}"} for name in names]}


def header_parameters() -> dict[str, Any]:
    """The request's headers as components of the document."""
    return {name: {"name": name, "in": "header", "required": False, **told} for name, told in REQUEST_HEADERS.items()}
