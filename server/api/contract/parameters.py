"""Parts of addresses, described once for the OpenAPI document. A value of another form names nothing, and gets 404."""

from typing import Annotated

from fastapi import Path

from server.slides.feedback import MOST_TURNS

SlideId = Annotated[
    str,
    Path(
        description="The slide's id, as the upload answered it: the SHA-256 of its bytes in 64 lower-case hex digits.",
        examples=["5e" * 32],
        json_schema_extra={"pattern": "^[0-9a-f]{64}$"},
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
ModelName = Annotated[str, Path(description="The model's `id`, as `GET /v1/models` lists it.", examples=["demo"])]
