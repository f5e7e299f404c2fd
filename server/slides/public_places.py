"""The places of a slide's tiles in the HTTP contract."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from server.slides.public_point import WholePoint


class SlidePlaces(BaseModel):
    """Where the tiles lie that a model was given of a slide; what lies in none was not read: glass, and pen."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    object: Literal["slide.places"] = "slide.places"
    slide_id: str = Field(description="The slide's id.", examples=["5e" * 32])
    model: str = Field(description="The model whose tiles they are.", examples=["demo"])
    encoder_id: str = Field(description="Identifies everything that the tiles depend on.")
    side_px: float = Field(description="Side of a tile in pixels of level 0.", examples=[224])
    least: int = Field(description="How many of them a region needs, to be asked about.", examples=[16])
    count: int = Field(description="How many there are.", examples=[4810])
    coords: list[WholePoint] = Field(
        description="Upper left corner (x, y) of each in pixels of level 0, in the order of `GET …/features`; of a "
        "model of levels, of its own regions.",
        examples=[[[12000, 8000], [12224, 8000]]],
    )
