"""Asks an archive by DICOMweb which instances a series has (QIDO-RS), and for each of them (WADO-RS).

An archive is a stranger, too: what it sends is bounded, and no redirect or address of its own is followed.
"""

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import structlog

from encoders.errors import SlideTooLarge
from server.errors import ArchiveAnswerUnusable, ArchiveRefused, ArchiveUnavailable, NotFound
from server.uploads.dicom.archive import DicomwebArchive
from server.uploads.dicom.dicom_instance import NO_LEVELS, UID_PATTERN
from server.uploads.dicom.stored_instances import DICOM_TYPE
from server.uploads.one_slide import MOST_FILES

log = structlog.get_logger(__name__)
_IMAGE_TYPE, _SOP_INSTANCE = "00080008", "00080018"
_PAGE = 500
_MAX_LIST_BYTES = 16 * 2**20
# An archive that fetches a slide from tape, or transcodes it, lets us wait.
_TIMEOUT = httpx.Timeout(120.0, connect=10.0)
_FILE_ACCEPT = f'multipart/related; type="{DICOM_TYPE}"; transfer-syntax=*'
_BOUNDARY = "eyepiece"


@dataclass(frozen=True)
class ArchivedInstance:
    """An instance that an archive has; `is_level` is False where it says itself that it is a label or the like."""

    uid: str
    is_level: bool


class ArchiveClient:
    """An async context manager around the connections to one archive."""

    def __init__(self, archive: DicomwebArchive) -> None:
        """Raises OSError when its certificates cannot be read."""
        self._url = archive.url
        own_ca = archive.ca_file
        trusted = ssl.create_default_context(cafile=own_ca) if own_ca else httpx.create_ssl_context(trust_env=False)
        headers = {"Accept-Encoding": "identity"}  # what is small on the way may be anything when it is unpacked
        if archive.token is not None:
            headers["Authorization"] = f"Bearer {archive.token.get_secret_value()}"
        login = None if archive.password is None else httpx.BasicAuth(archive.user, archive.password.get_secret_value())
        self._client = httpx.AsyncClient(
            verify=trusted, trust_env=False, follow_redirects=False, timeout=_TIMEOUT, headers=headers, auth=login
        )

    async def __aenter__(self) -> "ArchiveClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def instances(self, study: str, series: str) -> list[ArchivedInstance]:
        """All instances of a series.

        Raises:
            NotFound: the archive has no such series.
            SlideTooLarge: there are more than a slide may have.
            ArchiveRefused, ArchiveUnavailable, ArchiveAnswerUnusable.
        """
        found: dict[str, ArchivedInstance] = {}
        while True:
            query = {"includefield": _IMAGE_TYPE, "limit": str(_PAGE), "offset": str(len(found))}
            url = f"{self._url}/studies/{study}/series/{series}/instances?{httpx.QueryParams(query)}"
            page = [_instance(item) for item in _list(await self._small(url))]
            new = {it.uid: it for it in page if it.uid not in found}
            found |= new
            if len(found) > MOST_FILES:
                raise SlideTooLarge(f"The series has more than {MOST_FILES} instances; export it in fewer.")
            if len(page) < _PAGE or not new:  # some archives have no pages
                break
        if not found:
            raise NotFound("The archive has no instance of this series in this study; look at both UIDs.")
        return list(found.values())

    @asynccontextmanager
    async def instance(self, study: str, series: str, uid: str) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
        """The content type and body of an answer with one instance, as the body of STOW-RS is.

        Raises:
            NotFound, ArchiveRefused, ArchiveUnavailable, ArchiveAnswerUnusable: also while the body is read.
        """
        url = f"{self._url}/studies/{study}/series/{series}/instances/{uid}"
        with _translated():
            async with self._client.stream("GET", url, headers={"Accept": _FILE_ACCEPT}) as answer:
                _require_success(answer)
                content_type = answer.headers.get("content-type", "")
                if content_type.split(";")[0].strip().lower() == DICOM_TYPE:  # alone, as some send it
                    yield f'multipart/related; type="{DICOM_TYPE}"; boundary={_BOUNDARY}', _alone(answer.aiter_bytes())
                else:
                    yield content_type, answer.aiter_bytes()

    async def _small(self, url: str) -> bytes:
        with _translated():
            async with self._client.stream("GET", url, headers={"Accept": "application/dicom+json"}) as answer:
                if answer.status_code == httpx.codes.NO_CONTENT:
                    return b"[]"
                _require_success(answer)
                content = bytearray()
                async for piece in answer.aiter_bytes():
                    content += piece
                    if len(content) > _MAX_LIST_BYTES:
                        raise ArchiveAnswerUnusable("The archive's list of instances is too long to be one.")
                return bytes(content)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (httpx.RemoteProtocolError, httpx.DecodingError) as error:
        raise ArchiveAnswerUnusable("The archive broke off its answer, or it is not HTTP.") from error
    except httpx.TransportError as error:
        log.warning("archive_unreachable", error=type(error).__name__)
        raise ArchiveUnavailable(
            "The archive does not answer, or not in time, or its certificate is not trusted."
        ) from error


async def _alone(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield f"--{_BOUNDARY}\r\nContent-Type: {DICOM_TYPE}\r\n\r\n".encode()
    async for piece in body:
        yield piece
    yield f"\r\n--{_BOUNDARY}--\r\n".encode()


def _require_success(answer: httpx.Response) -> None:
    status = answer.status_code
    if answer.is_success:
        return
    if status in (401, 403):
        raise ArchiveRefused(f"The archive refuses this server ({status}); ask the operator about its credentials.")
    if status in (404, 410):
        raise NotFound("The archive has no such series or instance; look at both UIDs.")
    if status in (408, 425, 429) or status >= 500:
        raise ArchiveUnavailable(f"The archive answers with {status}: it is busy, or not well.")
    raise ArchiveAnswerUnusable(f"The archive answers with {status}, which leads nowhere; redirects are not followed.")


def _list(content: bytes) -> list[Any]:
    try:
        found = orjson.loads(content or b"[]")
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise ArchiveAnswerUnusable("The archive's list of instances is not DICOM JSON.")
    return found


def _instance(item: Any) -> ArchivedInstance:
    uid, kinds = _values(item, _SOP_INSTANCE)[:1], _values(item, _IMAGE_TYPE)
    if not uid or not isinstance(uid[0], str) or not UID_PATTERN.fullmatch(uid[0]):
        raise ArchiveAnswerUnusable("The archive's list of instances has one without SOP Instance UID.")
    return ArchivedInstance(uid[0], not any(isinstance(kind, str) and kind in NO_LEVELS for kind in kinds))


def _values(item: Any, tag: str) -> list[Any]:
    attribute = item.get(tag) if isinstance(item, dict) else None
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    return values if isinstance(values, list) else []
