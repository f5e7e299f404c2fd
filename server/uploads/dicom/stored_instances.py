"""The body of STOW-RS (DICOM PS3.18, 10.5): instances as parts of multipart/related, each a file of the folder."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from python_multipart.multipart import parse_options_header

from server.errors import InvalidRequest, WrongContentType
from server.telemetry.metrics import Metrics
from server.uploads.one_slide import MOST_FILES, SourceFile
from server.uploads.staged_parts import MAX_BOUNDARY_BYTES, StagedParts
from server.uploads.upload import receive_parts, staged
from server.uploads.upload_files import UploadBudget, UploadLimits

DICOM_TYPE = "application/dicom"
_ASK_FOR_INSTANCES = f'Send instances as multipart/related; type="{DICOM_TYPE}"; boundary=….'


class _InstancesAlone:
    """A body of nothing but instances."""

    most_parts = MOST_FILES

    def text_of(self, headers: Mapping[bytes, bytes]) -> str | None:
        """See PartsPolicy: nothing is text."""
        return None

    def end_text(self, name: str, text: str) -> None:
        """See PartsPolicy."""

    def name_of(self, headers: Mapping[bytes, bytes]) -> str:
        """See PartsPolicy. What an instance is called follows from what it says of itself."""
        kind, _ = parse_options_header(headers.get(b"content-type", DICOM_TYPE.encode()))
        if kind.lower() != DICOM_TYPE.encode():
            raise WrongContentType(f"Each part must be {DICOM_TYPE}. {_ASK_FOR_INSTANCES}")
        return ""


async def receive_instances(
    body: AsyncIterator[bytes], content_type: str, folder: Path, limits: UploadLimits, metrics: Metrics
) -> tuple[SourceFile, ...]:
    """Write each instance to a file of its own in the new folder `folder`, in the order of the body. The caller removes
    it; on any failure it is gone.

    Raises:
        WrongContentType, InvalidRequest: another kind of body, none in it, or cut off.
        UploadTooLarge, QuotaExceeded: beyond a limit, all instances together.
        StorageFull, StorageUnavailable: the disk is.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/related" or options.get(b"type", DICOM_TYPE.encode()).lower() != DICOM_TYPE.encode():
        raise WrongContentType(_ASK_FOR_INSTANCES)
    if not 1 <= len(boundary) <= MAX_BOUNDARY_BYTES:
        raise InvalidRequest(_ASK_FOR_INSTANCES)
    with staged(folder):
        parts = StagedParts(boundary, _InstancesAlone(), UploadBudget(folder, limits, metrics))
        await receive_parts(body, parts)
        if not parts.is_complete:
            raise InvalidRequest("The request was cut off before its end; send it again.")
        if not parts.received:
            raise InvalidRequest(f"The request has no instance. {_ASK_FOR_INSTANCES}")
        return tuple(part.source_file() for part in parts.received)
