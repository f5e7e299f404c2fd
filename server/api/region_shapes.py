"""What a client draws on a slide, in level-0 pixels: a rectangle or a polygon."""

import asyncio
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from encoders.regions.outline import MAX_CORNERS, Outline

RegionName = Annotated[str, Field(max_length=64, description="A region's id, as drawing it answered.")]
Pixels = Annotated[float, Field(allow_inf_nan=False, ge=-1e7, le=1e7)]
Corner = tuple[Pixels, Pixels]
Side = Annotated[float, Field(allow_inf_nan=False, gt=0, le=1e7)]


def _one_of_both(schema: dict[str, Any]) -> None:
    """One of the two is left out, which null is not; a body that says more than the shape has more properties."""
    shapes = ("rectangle", "polygon")
    schema["oneOf"] = [{"required": [name]} for name in shapes]
    for name in shapes:
        schema["properties"][name].pop("default", None)


class Rectangle(BaseModel):
    """A rectangle in level-0 pixels; it may reach beyond the slide."""

    model_config = ConfigDict(extra="forbid")

    x: Pixels = Field(description="Left edge.", examples=[12000])
    y: Pixels = Field(description="Upper edge.", examples=[8000])
    width: Side = Field(examples=[4096])
    height: Side = Field(examples=[4096])


class RegionShape(BaseModel):
    """A region as it is drawn: one rectangle or one polygon. Tiles belong to it whose centre lies inside; with fewer
    than 16 it is too small (`region_too_small`)."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_one_of_both)

    rectangle: Rectangle | SkipJsonSchema[None] = None
    polygon: (
        Annotated[list[Corner], Field(fail_fast=True, min_length=3, max_length=MAX_CORNERS)] | SkipJsonSchema[None]
    ) = Field(
        None,
        description="Corners (x, y) in level-0 pixels, in either direction; the first need not stand at the end again. "
        "The outline may not cross itself.",
        examples=[[[12000, 8000], [16096, 8000], [14000, 12096]]],
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.rectangle is None) == (self.polygon is None):
            raise ValueError("a region is either a rectangle or a polygon")
        return self

    def outline(self) -> Outline:
        """Raises UnusableRegion for what is no simple polygon."""
        if self.rectangle is None:
            return Outline.of(self.polygon or ())
        box = self.rectangle
        return Outline.rectangle(box.x, box.y, box.width, box.height)


async def drawn_outline(shape: RegionShape) -> Outline:
    """Its outline, in a thread: to compare a thousand edges each with each takes tens of milliseconds, which the
    answers that stream meanwhile do not have. Raises UnusableRegion for what is no simple polygon."""
    return await asyncio.to_thread(shape.outline)


async def asked_region(region: RegionShape | str | None) -> Outline | str | None:
    """A region as a question names it; raises UnusableRegion."""
    return await drawn_outline(region) if isinstance(region, RegionShape) else region
