"""A slide's record, `slide.json`: what only the upload knew, and what the last encode found out.

Whether a slide is ready is never stored: it is ready when its embedding is there, so the two cannot disagree.

A record that cannot be read, or that a newer release wrote, stands alone (docs/decisions/0017). Fields that a newer
release adds are kept when a record is rewritten; one that gives a field another meaning writes a higher
`format_version`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

import encoders.types
from encoders.tile_budget import TileBudget, TileChoice
from encoders.types import SlideFacts, WarningCode
from server.errors import RecordNewer, RecordUnreadable
from server.storage.slide_store import SlidePaths
from server.uploads.slide_metadata import NOTHING_SAID, SlideMetadata

Priority = Literal["routine", "urgent"]


# The `vendor` of a slide that was uploaded as precomputed features.
FEATURES_VENDOR = "features"


_FORMAT_VERSION = 1


_OF_A_MODEL = ("encoder_id", "tile_count", "error", "warnings", "familiarity")
# The code of warnings that go when the features do.
FEATURES_DOUBTED: WarningCode = "features_doubted"
# The code of the one that is the slide stage's own: it goes when that says otherwise.
TILES_THINNED: WarningCode = "tiles_thinned"
# The code of the one that goes with the tile budget.
TILE_BUDGET: WarningCode = "tile_budget"


class SlideError(BaseModel):
    """Why a slide failed: a stable code and one sentence that says what to do."""

    model_config = ConfigDict(frozen=True)

    code: str
    detail: str


class SlideWarning(BaseModel):
    """What is doubtful about a slide that is used all the same: a stable code, and what was doubted and done."""

    model_config = ConfigDict(frozen=True)

    code: str
    detail: str


class SlideTileBudget(BaseModel):
    """Encode at most so many of the slide's tiles, or regions where the model reads those."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tiles: int = Field(strict=True, ge=1, le=10_000_000, description="How many at most.", examples=[1000])
    choice: TileChoice = Field(
        "uniform",
        description="`uniform`: evenly spaced in reading order; `random`: drawn by `seed` and the slide's id.",
    )
    seed: int = Field(0, strict=True, ge=0, le=2**31 - 1, description="Of a random choice.")


UNLIKE_TRAINING = SlideWarning(
    code="unlike_training",
    detail="The slide's tissue lies far from what the model was made for; its answers about it may mean nothing.",
)


class FamiliarityRecord(BaseModel):
    """How far the slide's tiles lie from the tissue that a model was made for, as they were under `encoder_id`; 1 is
    the largest distance of familiar ones."""

    model_config = ConfigDict(frozen=True)

    encoder_id: str
    distance: float


class EncodingRecord(BaseModel):
    """How the encode for one model went."""

    model_config = ConfigDict(frozen=True, extra="allow")

    encoder_id: str
    tile_count: int | None = None
    error: SlideError | None = None
    warnings: tuple[SlideWarning, ...] = ()
    familiarity: FamiliarityRecord | None = None


class SlideRecord(BaseModel):
    """`slide.json`, as one model sees it: `encoder_id`, `tile_count`, `error`, `warnings` and `familiarity` are
    that model's, and `encodings` has those of the others by name, the default's under "". Stored is what the default
    model sees.

    `model` is the model's name, "" for the default; `wanted` is False when nobody has asked for its encode yet. Neither
    is stored. `generation` tells two uploads of the same content apart, with a delete in between;
    `features_sha256` names attached features that are encoded instead of the pixels."""

    model_config = ConfigDict(frozen=True, extra="allow")

    # Absent in the file while it is 1, so that releases from before there was one read it too.
    format_version: int = _FORMAT_VERSION
    id: str
    tenant: str
    generation: str
    filename: str
    size_bytes: int
    created_at: datetime
    vendor: str | None = None
    width: int | None = None
    height: int | None = None
    mpp: float | None = None
    objective_power: float | None = None
    study_uid: str | None = None
    series_uid: str | None = None
    mpp_override: float | None = None
    features_sha256: str | None = None
    metadata: SlideMetadata = NOTHING_SAID
    tile_budget: SlideTileBudget | None = None
    entry: str | None = None
    priority: Priority = "routine"
    encoder_id: str
    tile_count: int | None = None
    error: SlideError | None = None
    warnings: tuple[SlideWarning, ...] = ()
    familiarity: FamiliarityRecord | None = None
    encodings: dict[str, EncodingRecord] = {}
    model: str = Field(default="", exclude=True)
    wanted: bool = Field(default=True, exclude=True)

    @property
    def paths(self) -> SlidePaths:
        """Where its objects are."""
        return SlidePaths(self.tenant, self.id)

    @property
    def encoding(self) -> EncodingRecord:
        """What is this model's of it."""
        return EncodingRecord(**{name: getattr(self, name) for name in _OF_A_MODEL})

    @property
    def distance(self) -> float | None:
        """How far it lies from what its model was made for, where that was measured of this encoding."""
        measured = self.familiarity
        return measured.distance if measured is not None and measured.encoder_id == self.encoder_id else None

    @property
    def doubts(self) -> tuple[SlideWarning, ...]:
        """Its warnings, and first of all that the model was made for other tissue."""
        far = self.distance is not None and self.distance > 1
        return (UNLIKE_TRAINING, *self.warnings) if far else self.warnings

    def seen_by(self, model: str, encoder_id: str) -> "SlideRecord":
        """The record as another model sees it, whose encoder id for the slide is this. What was found out under
        another id does not hold; what was doubted about the slide does until it is encoded."""
        others = dict(self.encodings)
        if self.wanted:
            others[self.model] = self.encoding
        there = others.pop(model, None)
        wanted = there is not None and there.encoder_id == encoder_id
        seen = there if there is not None and wanted else EncodingRecord(encoder_id=encoder_id, warnings=self.warnings)
        changes = {"model": model, "wanted": wanted, "encodings": others}
        return self.model_copy(update={**changes, **{name: getattr(seen, name) for name in _OF_A_MODEL}})

    @property
    def budget(self) -> TileBudget | None:
        """Its tile budget in the words of the encoders."""
        found = self.tile_budget
        return None if found is None else TileBudget(found.tiles, found.choice, found.seed)

    @property
    def has_pixels(self) -> bool:
        """False for a slide that was uploaded as precomputed features."""
        return self.vendor != FEATURES_VENDOR

    def with_facts(self, facts: SlideFacts) -> "SlideRecord":
        """The record with what the file says of itself; an override of µm/px stays visible as `mpp`."""
        return self.model_copy(
            update={
                "vendor": facts.vendor,
                "width": facts.width,
                "height": facts.height,
                "mpp": self.mpp_override or facts.mpp,
                "objective_power": facts.objective_power,
                "warnings": recorded(facts.warnings),
            }
        )


@dataclass(frozen=True)
class UnreadableRecord:
    """A slide whose record cannot be used, with what is known of it; `replaceable` when no release can use it."""

    tenant: str
    id: str
    filename: str
    size_bytes: int
    created_at: datetime
    error: SlideError
    replaceable: bool

    @property
    def paths(self) -> SlidePaths:
        """Where its objects are."""
        return SlidePaths(self.tenant, self.id)


def recorded(warnings: Iterable[encoders.types.SlideWarning]) -> tuple[SlideWarning, ...]:
    """What a reader or a plan doubts, as the record keeps it."""
    return tuple(SlideWarning(code=it.code, detail=it.detail) for it in warnings)


class Salvage(BaseModel):
    """What a record that cannot be used may still say."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    filename: Annotated[str, Field(max_length=255)] | None = None
    size_bytes: Annotated[int, Field(ge=0)] | None = None
    created_at: AwareDatetime | None = None


def now() -> datetime:
    """The current time in UTC, to the millisecond."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def record_bytes(record: SlideRecord) -> bytes:
    """The content of `slide.json`."""
    is_first = record.format_version == _FORMAT_VERSION == 1
    said = {
        "format_version": not is_first,
        "encodings": bool(record.encodings),
        "metadata": any(record.metadata.values),
    }
    return record.model_dump_json(exclude={name for name, is_said in said.items() if not is_said}).encode()


def parse_record(content: bytes, paths: SlidePaths) -> SlideRecord:
    """The record in `slide.json`.

    Raises:
        RecordNewer, RecordUnreadable: it is a newer release's, damaged, or another slide's.
    """
    version = record_fields(content).get("format_version", _FORMAT_VERSION)
    if isinstance(version, int) and version > _FORMAT_VERSION:
        raise RecordNewer(
            "A newer release of Eyepiece wrote this slide's record; run that one, or delete the slide and upload it "
            "again."
        )
    try:
        record = SlideRecord.model_validate_json(content)
    except ValidationError as error:
        raise damaged_record("cannot be read") from error
    if (record.tenant, record.id) != (paths.tenant, paths.slide_id):
        raise damaged_record("is another slide's")
    return record


def record_fields(content: bytes) -> dict[str, Any]:
    """The JSON object in a record's bytes, empty when there is none."""
    try:
        found = orjson.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def damaged_record(what: str) -> RecordUnreadable:
    """The error for a record that `what`: "cannot be read"."""
    return RecordUnreadable(f"The stored record of this slide {what}; upload the slide again, or delete it.")
