"""Parts of addresses, described once for the OpenAPI document. A value of another form names nothing, and gets 404."""

from typing import Annotated, Any

from fastapi import Path
from pydantic import WithJsonSchema

from server.slides.feedback import MOST_TURNS

# A slide's id, or its series.
SLIDE_NAME = "^([0-9a-f]{64}|dicom:[0-9.]{1,64})$"
SlideId = Annotated[
    str,
    Path(
        description="The slide's id, as the upload answered it: the SHA-256 of its bytes in 64 lower-case hex digits. "
        "Or `dicom:` and the Series Instance UID, of a slide that is a DICOM series.",
        examples=["5e" * 32, "dicom:1.2.826.0.1.3680043.8.498.2"],
        json_schema_extra={"pattern": SLIDE_NAME},
    ),
]
RegionId = Annotated[
    str,
    Path(
        description="The region's id, as drawing it answered.",
        examples=["reg_" + "0c" * 16],
        json_schema_extra={"pattern": "^reg_[0-9a-f]{32}$"},
    ),
]
ConversationId = Annotated[
    str,
    Path(
        description="The conversation's id, as an answer gave it.",
        examples=["conv_0J5eYy3mQ2uVx1bTkW9aZw"],
        json_schema_extra={"pattern": "^conv_[A-Za-z0-9_-]{22}$"},
    ),
]
TurnNumber = Annotated[
    int,
    Path(
        ge=1,
        le=MOST_TURNS,
        description="Number of the turn in its conversation, from 1, as the answer gave it.",
        examples=[1],
    ),
]
# All that an address can be told of a UID by.
UID_FORM = "^[0-9.]{1,64}$"
_UID: dict[str, Any] = {"pattern": UID_FORM}
StudyOfSlide = Annotated[
    str,
    Path(description="The study's Instance UID.", examples=["1.2.826.0.1.3680043.8.498.1"], json_schema_extra=_UID),
]
SeriesOfSlide = Annotated[
    str,
    Path(description="The series' Instance UID.", examples=["1.2.826.0.1.3680043.8.498.2"], json_schema_extra=_UID),
]
InstanceOfSlide = Annotated[
    str,
    Path(
        description="The instance's SOP Instance UID.", examples=["1.2.826.0.1.3680043.8.498.3"], json_schema_extra=_UID
    ),
]
ModelName = Annotated[str, Path(description="The model's `id`, as `GET /v1/models` lists it.", examples=["demo"])]


def _number(described: str, example: int) -> Any:
    """A whole number that is taken as text: what is none names nothing either."""
    schema = {"type": "integer", "minimum": 0, "examples": [example]}
    return Annotated[str, Path(description=described), WithJsonSchema(schema)]


TileLevel = _number(
    "DeepZoom's level: 0 is one pixel, the last one the slide's level 0, each twice the one before.", 12
)
TileColumn = _number("Column of the tile in its level, from the left.", 3)
TileRow = _number("Row of the tile in its level, from above.", 2)
