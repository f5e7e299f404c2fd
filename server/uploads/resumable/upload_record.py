"""What is kept of a resumable upload beside its bytes, and of the slide that one or several of them become.

An upload's id is 32 hex digits of its slide in the making, then 32 of its own. Those of a slide of several files share
the first half, which is made from the name that the client gave the slide: so they are found without a search.
"""

import hashlib
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from server.storage.slide_store import uploads_folder
from server.uploads.dicom.dicom_instance import DicomInstance
from server.uploads.slide_metadata import NOTHING_SAID, SlideMetadata, said_metadata

UPLOAD_ID_PATTERN = re.compile(r"[0-9a-f]{64}")
_HALF = 32


def _whole_second(moment: datetime) -> datetime:
    """HTTP's dates have no smaller part."""
    return moment.astimezone(UTC).replace(microsecond=0)


Moment = Annotated[datetime, AfterValidator(_whole_second)]


def making_of(slide: str) -> str:
    """The first half of the ids of all uploads of the slide that the client calls `slide`."""
    return hashlib.sha256(slide.encode(errors="replace")).hexdigest()[:_HALF]


class UploadRecord(BaseModel):
    """One file that is being uploaded. `relative_path`, `slide` and `metadata` are the client's, and can be PHI."""

    model_config = ConfigDict(frozen=True)

    format_version: int = 1
    id: str
    tenant: str
    length_bytes: int
    relative_path: str
    slide: str | None
    metadata: str
    created_at: Moment
    expires_at: Moment
    # While bytes are received whose checksum is not known yet: how many came before them.
    verified_bytes: int | None = None
    # Of all its bytes, once they are there.
    sha256: str | None = None
    # What is said of the slide.
    about: SlideMetadata = NOTHING_SAID
    # Of an instance that came by STOW-RS: what it says of itself.
    instance: DicomInstance | None = None

    @property
    def making(self) -> str:
        """The slide in the making."""
        return self.id[:_HALF]

    @property
    def paths(self) -> "MakingPaths":
        """Where it is kept."""
        return MakingPaths(self.tenant, self.making)

    @property
    def is_whole_slide(self) -> bool:
        """Whether it becomes a slide by itself."""
        return self.slide is None

    @property
    def is_complete(self) -> bool:
        """Whether all its bytes are there."""
        return self.sha256 is not None

    def renewed(self, lifetime_s: float, **changes: object) -> "UploadRecord":
        """Changed, and kept for `lifetime_s` from now on."""
        return self.model_copy(update={"expires_at": until(lifetime_s), **changes})


class Refusal(BaseModel):
    """Why what was uploaded is no slide; `detail` may name the client's files."""

    code: str
    detail: str


class Outcome(BaseModel):
    """What became of a slide in the making: one of the two."""

    model_config = ConfigDict(frozen=True)

    slide_id: str | None
    error: Refusal | None
    expires_at: Moment


class MakingPaths:
    """Where the uploads of one slide in the making are."""

    def __init__(self, tenant: str, making: str) -> None:
        self.folder = f"{uploads_folder(tenant)}/{making}"
        self.outcome = f"{self.folder}/outcome.json"

    def record(self, upload_id: str) -> str:
        """An upload's record."""
        return f"{self.folder}/{upload_id[_HALF:]}/upload.json"

    def data(self, upload_id: str) -> str:
        """An upload's bytes."""
        return f"{self.folder}/{upload_id[_HALF:]}/data"


def new_upload(
    tenant: str, length_bytes: int, metadata: Mapping[str, str], raw: str, lifetime_s: float
) -> UploadRecord:
    """An upload that is to be created; `metadata` is what the client says of its file, `raw` the same as it came.

    Raises:
        InvalidRequest: what it says of the slide cannot be kept.
    """
    slide = metadata.get("slide") or None
    making = making_of(slide) if slide is not None else uuid.uuid4().hex
    name = next((metadata[key] for key in ("path", "filename", "name") if metadata.get(key)), "")
    return UploadRecord(
        id=making + uuid.uuid4().hex,
        tenant=tenant,
        length_bytes=length_bytes,
        relative_path=name.replace("\\", "/"),
        slide=slide,
        metadata=raw,
        about=said_metadata(metadata),
        created_at=until(0),
        expires_at=until(lifetime_s),
    )


def series_slide(series: str) -> str:
    """What uploads of the instances of a DICOM series say as `slide`."""
    return f"dicom:{series}"


def instance_upload_id(series: str, sop_instance: str) -> str:
    """The id of the upload of an instance: the same whenever it is sent."""
    return making_of(series_slide(series)) + hashlib.sha256(sop_instance.encode()).hexdigest()[:_HALF]


def instance_upload(tenant: str, instance: DicomInstance, size_bytes: int, lifetime_s: float) -> UploadRecord:
    """An upload of an instance, of which no byte is in the store yet."""
    return UploadRecord(
        id=instance_upload_id(instance.series, instance.sop_instance),
        tenant=tenant,
        length_bytes=size_bytes,
        relative_path=f"{instance.sop_instance}.dcm",
        slide=series_slide(instance.series),
        metadata="",
        created_at=until(0),
        expires_at=until(lifetime_s),
        instance=instance,
    )


def until(lifetime_s: float) -> datetime:
    """The moment in so many seconds."""
    return datetime.now(UTC) + timedelta(seconds=lifetime_s)
