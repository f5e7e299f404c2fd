"""What of a slide a turn is about: all of it, or a region. A turn says so, and a follow-up keeps it until another is
named.

Turns about another scope are not given to the model: it would take them for being about what it sees now
(docs/decisions/0053).
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from server.asking.answer_warnings import AnswerWarning, slide_warnings
from server.slides.region_record import RegionRecord
from server.slides.slide_record import SlideRecord

# How a question names the whole slide.
WHOLE = "slide"
_NOT_EVALUATED = AnswerWarning(
    "region_not_evaluated",
    "About a region of the slide; the accuracy of such answers was not evaluated, and a place that the answer names "
    "may be meant in the slide or in the region.",
)
# Said of the slide; a region has its own.
_OF_THE_SLIDE = "tiles_thinned"


class SlideScope(BaseModel):
    """The whole slide."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    kind: Literal["slide"] = "slide"


class RegionScope(BaseModel):
    """A region of the slide."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    kind: Literal["region"] = "region"
    region_id: str = Field(description="The region's id.", examples=["reg_" + "0c" * 16])
    tiles: int = Field(description="How many tiles of the slide it has.", examples=[29])
    area_mm2: float | None = Field(description="What they cover; null where nobody knows.", examples=[0.36])


Scope = Annotated[SlideScope | RegionScope, Field(discriminator="kind")]
WHOLE_SLIDE = SlideScope()


def scope_of(region: RegionRecord | None) -> SlideScope | RegionScope:
    """The scope of a region; None is the whole slide."""
    if region is None:
        return WHOLE_SLIDE
    return RegionScope(region_id=region.id, tiles=region.tiles, area_mm2=region.area_mm2)


def name_of(scope: SlideScope | RegionScope) -> str:
    """How a question names it."""
    return scope.region_id if isinstance(scope, RegionScope) else WHOLE


def scope_warnings(
    record: SlideRecord, region: RegionRecord | None, turns_of_others: int = 0
) -> tuple[AnswerWarning, ...]:
    """What is doubtful about an answer in this scope; `turns_of_others` earlier turns were about another one."""
    doubts = list(slide_warnings(record))
    if region is not None:
        doubts = [it for it in doubts if it.code != _OF_THE_SLIDE]
        doubts += [AnswerWarning(it.code, it.detail) for it in region.warnings]
        doubts.append(_NOT_EVALUATED)
    if turns_of_others:
        doubts.append(
            AnswerWarning(
                "turns_of_another_scope",
                f"Earlier turns of the conversation ({turns_of_others}) are about another part of the slide; the model "
                "was not given them.",
            )
        )
    return tuple(doubts)
