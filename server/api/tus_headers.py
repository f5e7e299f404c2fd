"""Headers of tus 1.0 (https://tus.io/protocols/resumable-upload): read from requests, and added to answers."""

import base64
import binascii
from collections.abc import Mapping

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import InvalidRequest, UnknownChecksum, UnknownTusVersion, WrongContentType
from server.uploads.resumable.append_bytes import CHECKSUM_ALGORITHMS, Checksum

TUS_VERSION = "1.0.0"
TUS_EXTENSIONS = "creation,creation-with-upload,checksum,expiration,termination"
BODY_TYPE = "application/offset+octet-stream"
UPLOADS_PATH = "/v1/uploads"
_MOST_METADATA_CHARS = 8_192
_MOST_DIGITS = 19
_DIGEST_BYTES = {"sha256": 32, "sha1": 20}


class TusHeaders:
    """ASGI middleware: every answer about uploads says the protocol's version; one that has none of ours to offer says
    which there are."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add what is missing."""
        if scope["type"] != "http" or not scope["path"].startswith(UPLOADS_PATH):
            await self._app(scope, receive, send)
            return

        async def with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Tus-Resumable"] = TUS_VERSION
                if message["status"] == 412:
                    headers["Tus-Version"] = TUS_VERSION
            await send(message)

        await self._app(scope, receive, with_version)


def require_tus(request: Request) -> None:
    """Raises UnknownTusVersion when the client speaks another version, or none."""
    if request.headers.get("tus-resumable") != TUS_VERSION:
        raise UnknownTusVersion(f"Send the header Tus-Resumable: {TUS_VERSION}.")


def require_body_type(request: Request) -> None:
    """Raises WrongContentType when the body is not said to be bytes of an upload."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != BODY_TYPE:
        raise WrongContentType(f"Send the bytes as Content-Type: {BODY_TYPE}.")


def number(request: Request, header: str) -> int:
    """A header that is a size in bytes; raises InvalidRequest when it is missing, or is none."""
    text = request.headers.get(header, "")
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise InvalidRequest(f"Send the header {header}, a whole number of bytes.")
    return int(text)


def upload_length(request: Request) -> int:
    """How large the upload is to become; raises InvalidRequest when that is not said, or it is part of another."""
    if "upload-concat" in request.headers:
        raise InvalidRequest("Parallel parts of one file are not taken (Upload-Concat); send the file as one upload.")
    if "upload-defer-length" in request.headers:
        raise InvalidRequest("Say the file's size at the beginning: send Upload-Length.")
    return number(request, "Upload-Length")


def upload_metadata(raw: str) -> Mapping[str, str]:
    """What `Upload-Metadata` says: names, each with a text in Base64.

    Raises:
        InvalidRequest: it cannot be read.
    """
    if len(raw) > _MOST_METADATA_CHARS:
        raise InvalidRequest(f"Upload-Metadata is longer than {_MOST_METADATA_CHARS} characters; shorten it.")
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in raw.split(","))):
        key, _, value = pair.partition(" ")
        try:
            text = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, ValueError) as error:
            raise InvalidRequest(
                "Upload-Metadata cannot be read; send pairs of a name and a text in UTF-8 and Base64, with commas."
            ) from error
        if key in found:
            raise InvalidRequest("Upload-Metadata names one thing twice; send it once.")
        found[key] = text
    return found


def checksum(request: Request) -> Checksum | None:
    """What `Upload-Checksum` says of the body, None when it is not sent.

    Raises:
        UnknownChecksum: of another kind, or unreadable.
    """
    header = request.headers.get("upload-checksum")
    if header is None:
        return None
    algorithm, _, encoded = header.strip().partition(" ")
    if algorithm not in CHECKSUM_ALGORITHMS:
        raise UnknownChecksum(f"Use one of {', '.join(CHECKSUM_ALGORITHMS)} for Upload-Checksum.")
    try:
        digest = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != _DIGEST_BYTES[algorithm]:
        raise UnknownChecksum("Upload-Checksum is the algorithm, a space, and the digest in Base64; send it so.")
    return Checksum(algorithm, digest)
