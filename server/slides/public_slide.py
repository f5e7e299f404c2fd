"""The Slide of the HTTP contract, as its record and its state make it."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from encoders.familiarity import Familiarity, FamiliarityVerdict
from encoders.types import MppSource
from server.slides.slide_record import SlideError, SlideRecord, SlideWarning, UnreadableRecord
from server.uploads.slide_metadata import METADATA_FIELDS

Status = Literal["queued", "encoding", "ready", "failed"]


class SlideFamiliarity(BaseModel):
    """How far a slide lies from the tissue that a model was made for."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    verdict: FamiliarityVerdict = Field(
        description="`familiar`; `unfamiliar`: answers may mean nothing, and `unlike_training` is among the warnings; "
        "`unknown`: nobody has measured it, see `reason`."
    )
    distance: float | None = Field(
        description="The median distance of its tiles, where 1 is the largest of familiar slides; null when unknown.",
        examples=[0.42],
    )
    reason: str | None = Field(description="Why it is unknown; else null.")


class SlideEncoding(BaseModel):
    """How the slide's encoding for one model stands."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    model: str = Field(description="The model's name, as in `GET /v1/models`.", examples=["demo"])
    encoder_id: str = Field(description="Identifies everything that the embedding depends on.")
    status: Status = Field(description="As `status` of the slide, for this model.")
    tile_count: int | None = Field(description="Number of encoded tiles.")
    error: SlideError | None = Field(description="Why it failed; null unless it did.")
    warnings: list[SlideWarning] = Field(description="Doubts of this encoding and what was done about them.")
    familiarity: SlideFamiliarity | None = Field(
        description="Whether the model was made for such tissue; null until it is encoded."
    )


class Slide(BaseModel):
    """A slide: what it says of itself, and how its encoding stands: that of the default model, and in `encodings` those
    of all models that it was encoded for."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    id: str = Field(description="SHA-256 of the slide's bytes, in lower-case hex.", examples=["5e" * 32])
    object: Literal["slide"] = "slide"
    status: Status = Field(
        description="`queued`, `encoding`, then `ready` (questions can be asked) or `failed` (see `error`)."
    )
    filename: str = Field(description="File name at upload.", examples=["biopsy.svs"])
    size_bytes: int = Field(description="Total size of its files.", examples=[734003200])
    vendor: str | None = Field(
        description="The format as OpenSlide calls it, or `features` for precomputed features.", examples=["aperio"]
    )
    width: int | None = Field(description="Pixels of level 0.", examples=[98304])
    height: int | None = Field(description="Pixels of level 0.", examples=[65536])
    mpp: float | None = Field(description="Resolution of level 0, in µm per pixel.", examples=[0.25])
    mpp_source: MppSource | None = Field(
        description="Source of the µm/px: the file (`property`), the caller (`override`) or attached `features`."
    )
    objective_power: float | None = Field(description="Magnification stated by the scanner.", examples=[40])
    study_uid: str | None = Field(
        description="Study Instance UID of a slide that is a DICOM series.", examples=["1.2.826.0.1.3680043.8.498.1"]
    )
    series_uid: str | None = Field(
        description="Series Instance UID of a slide that is a DICOM series: `dicom:` and this name the slide, too.",
        examples=["1.2.826.0.1.3680043.8.498.2"],
    )
    accession: str | None = Field(description="As its sender said; null for nothing, as with the next ones.")
    case: str | None = Field(description="What groups it with other slides: `GET /v1/cases`.")
    patient_ref: str | None = Field(description="The sender's reference to a patient.")
    stain: str | None = Field(examples=["HE"])
    body_site: str | None = Field(examples=["breast, left"])
    labels: list[str] = Field(description="Any words of the sender's own.", examples=[["teaching"]])
    tile_count: int | None = Field(
        description="Number of encoded tiles; null until then, and for slides without tiles."
    )
    encoder_id: str | None = Field(description="Identifies everything that the slide's embedding depends on.")
    error: SlideError | None = Field(description="Why the slide failed; null unless it did.")
    warnings: list[SlideWarning] = Field(
        description="Doubts about the slide and what was done about them; empty when there are none."
    )
    familiarity: SlideFamiliarity | None = Field(
        description="Whether the default model was made for such tissue; null until it is encoded."
    )
    created_at: datetime = Field(description="When it was uploaded (RFC 3339).")
    encodings: list[SlideEncoding] = Field(
        description="By model: the default first, then those that somebody asked for."
    )


def _stored(record: SlideRecord, fields: set[str]) -> dict[str, Any]:
    """Those of the fields that a record has here; what a newer release keeps under such a name means something else."""
    return record.model_dump(include=fields & set(SlideRecord.model_fields))


def describe(record: SlideRecord, encodings: list[SlideEncoding]) -> Slide:
    """The public view of a record; the default model's encoding is the first."""
    shown = _stored(record, set(Slide.model_fields) - {"encodings", "familiarity", "warnings"})
    first = encodings[0]
    return Slide(
        **shown,
        **record.metadata.model_dump(include=set(METADATA_FIELDS)),
        status=first.status,
        mpp_source=_mpp_source(record),
        warnings=list(record.doubts),
        familiarity=first.familiarity,
        encodings=encodings,
    )


def describe_encoding(record: SlideRecord, model: str, status: Status) -> SlideEncoding:
    """The public view of what `model` sees of a record."""
    shown = _stored(record, set(SlideEncoding.model_fields) - {"model", "familiarity", "warnings"})
    familiarity = _familiarity(record) if status == "ready" else None
    return SlideEncoding(**shown, model=model, status=status, warnings=list(record.doubts), familiarity=familiarity)


def describe_unreadable(record: UnreadableRecord) -> Slide:
    """The public view of a slide whose record cannot be used: failed, with what is known."""
    return Slide(
        id=record.id,
        status="failed",
        filename=record.filename,
        size_bytes=record.size_bytes,
        created_at=record.created_at,
        error=record.error,
        vendor=None,
        width=None,
        height=None,
        mpp=None,
        mpp_source=None,
        objective_power=None,
        study_uid=None,
        series_uid=None,
        accession=None,
        case=None,
        patient_ref=None,
        stain=None,
        body_site=None,
        labels=[],
        tile_count=None,
        encoder_id=None,
        warnings=[],
        familiarity=None,
        encodings=[],
    )


def _familiarity(record: SlideRecord) -> SlideFamiliarity:
    distance = record.distance
    if distance is None:
        return SlideFamiliarity(
            verdict="unknown",
            distance=None,
            reason="The model has no statistics of the tissue that it was made for, or had none when it encoded this.",
        )
    return SlideFamiliarity(verdict=Familiarity(distance).verdict, distance=distance, reason=None)


def _mpp_source(record: SlideRecord) -> MppSource | None:
    if record.mpp is None:
        return None
    if not record.has_pixels:
        return "features"
    return "property" if record.mpp_override is None else "override"
