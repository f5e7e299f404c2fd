"""The Region of the HTTP contract."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from server.slides.public_point import Point
from server.slides.public_slide import Status
from server.slides.region_record import RegionRecord
from server.slides.slide_record import SlideError, SlideWarning


class Region(BaseModel):
    """A region of a slide, which is the tiles that lie in it."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    region_id: str = Field(
        description="Made of the slide, the encoder id and the region's tiles: the same tiles give the same id.",
        examples=["reg_" + "0c" * 16],
    )
    object: Literal["region"] = "region"
    slide_id: str = Field(description="The slide's id.", examples=["5e" * 32])
    model: str = Field(description="The model whose tiles it was drawn on.", examples=["demo"])
    encoder_id: str = Field(description="Identifies everything that the embedding depends on.")
    status: Status = Field(
        description="`queued`, `encoding`, then `ready` (questions can be asked) or `failed` (see `error`)."
    )
    tiles: int = Field(description="Tiles whose centre lies inside.", examples=[29])
    area_mm2: float | None = Field(
        description="What these tiles cover, in mm²; null where nobody has said the slide's µm/px.", examples=[0.36]
    )
    polygon: list[Point] = Field(description="Corners (x, y) in level-0 pixels, as it was drawn first.")
    warnings: list[SlideWarning] = Field(description="Doubts about the region; empty when there are none.")
    error: SlideError | None = Field(description="Why it could not be made; null unless it could not.")
    created_at: datetime = Field(description="When it was drawn first (RFC 3339).")


def describe_region(record: RegionRecord, model: str, status: Status) -> Region:
    """The public view of a region."""
    return Region(
        region_id=record.id,
        slide_id=record.slide_id,
        model=model,
        encoder_id=record.encoder_id,
        status=status,
        tiles=record.tiles,
        area_mm2=record.area_mm2,
        polygon=list(record.outline),
        warnings=list(record.warnings),
        error=record.error,
        created_at=record.created_at,
    )
