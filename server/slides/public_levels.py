"""The levels of a slide in the HTTP contract: regions, the patches chosen of each, and their cells."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from encoders.hierarchical.cell_kinds import CELL_KINDS
from encoders.hierarchical.cell_outlines import CellPolygon
from server.slides.public_point import Point

CellKind = Literal["unclassified", "neoplastic", "inflammatory", "connective", "dead", "epithelial"]
MEANING = (
    "This is what the model was given of the slide. It does not say why the model answered as it did: regions have no "
    "weight, and the rank of a patch is its likeness to one patch of the slide's first region, not its importance. "
    "Cells and their kinds were found by a network and are not a diagnosis."
)
_ALL_SENT = ConfigDict(json_schema_serialization_defaults_required=True)


class LevelBox(BaseModel):
    """A square of the slide, in pixels of level 0."""

    x: int = Field(description="Left edge.", examples=[40960])
    y: int = Field(description="Upper edge.", examples=[8192])
    width: int = Field(examples=[256])
    height: int = Field(examples=[256])


class CellCounts(BaseModel):
    """Cells by kind."""

    total: int = Field(description="Of all kinds.", examples=[31])
    neoplastic: int
    inflammatory: int
    connective: int
    dead: int
    epithelial: int
    unclassified: int = Field(description="The network that tells kinds saw background on all of their pixels.")


class LevelCell(BaseModel):
    """A cell of a chosen patch. Pixel i covers i to i + 1, so the middle of a pixel ends in .5."""

    kind: CellKind
    centroid: Point = Field(description="(x, y) in pixels of level 0.", examples=[[41012.5, 8239.25]])
    contour: list[Point] = Field(
        description="The outline as a closed ring of (x, y) in pixels of level 0, its first point again at its end. It "
        "goes through the middles of the outermost pixels."
    )
    mended: bool = Field(
        description="The outline that was found touched itself. Its tails one pixel wide were cut off; of a cell that "
        "is no wider, `contour` is the box of its pixels."
    )


class LevelPatch(BaseModel):
    """A patch that was chosen of its region."""

    rank: int = Field(
        ge=1,
        description="From 1, the most like one patch of the slide's first region. It is the order in which the model "
        "is given them, not their importance.",
    )
    box: LevelBox
    cell_counts: CellCounts | None = Field(description="Null where nobody knows the cells: `cell_counts` of the slide.")
    cells: list[LevelCell] | None = Field(description="Null unless `region` was asked for, or where nobody knows them.")


class LevelRegion(BaseModel):
    """A region, in the order in which the model is given them."""

    index: int = Field(ge=0, description="What `region` asks for.")
    box: LevelBox
    cell_counts: CellCounts | None = Field(description="Of its chosen patches.")
    patches: list[LevelPatch] = Field(description="Those that were chosen, by rank.")


class SlideLevels(BaseModel):
    """What a model that looks at regions, patches and cells was given of a slide."""

    model_config = _ALL_SENT

    object: Literal["slide.levels"] = "slide.levels"
    meaning: str = Field(description="What this says and what it does not; show it beside the levels.")
    slide_id: str
    model: str = Field(description="Its `id` in `GET /v1/models`.", examples=["demo-hierarchical"])
    encoder_id: str = Field(description="Identifies everything that the levels depend on.")
    width: int | None = Field(description="Pixels of level 0; null where nobody said.")
    height: int | None = Field(description="Pixels of level 0; null where nobody said.")
    region_px: int = Field(description="Side of a region in pixels of level 0.", examples=[4096])
    patch_px: int = Field(description="Side of a patch in pixels of level 0.", examples=[256])
    region_count: int = Field(description="Regions of the slide, however many `regions` has.")
    cell_counts: CellCounts | None = Field(
        description="Of all chosen patches; cells elsewhere were not looked for. Null where nobody knows the cells: "
        "the slide was encoded from features that came without."
    )
    regions: list[LevelRegion] = Field(description="All, or the one that `region` asks for.")


class GeoPolygon(BaseModel):
    """A polygon of one ring, which is closed; pixels of level 0."""

    type: Literal["Polygon"]
    coordinates: list[list[Point]] = Field(min_length=1, max_length=1)


class GeoClassification(BaseModel):
    """The class that QuPath shows: `Given region`, `Given patch`, or the kind of a cell."""

    name: str = Field(examples=["Neoplastic"])
    color: tuple[int, int, int] = Field(description="RGB, 0 to 255.")


class GeoProperties(BaseModel):
    """What QuPath reads of a feature."""

    objectType: Literal["annotation", "detection"] = Field(  # noqa: N815 - QuPath's name
        description="Regions and patches are annotations, cells are detections."
    )
    name: str | None = Field(None, description="Of regions and patches.", examples=["region 3, rank 1"])
    classification: GeoClassification
    isLocked: bool | None = Field(None, description="True of regions and patches.")  # noqa: N815 - QuPath's name
    measurements: dict[str, int] | None = Field(
        None, description="Region, rank and the numbers of cells by kind, of regions and patches."
    )
    mended: Literal[True] | None = Field(None, description="As of a cell in `SlideLevels`; absent otherwise.")


class GeoFeature(BaseModel):
    """A region, a patch or a cell."""

    type: Literal["Feature"]
    geometry: GeoPolygon
    properties: GeoProperties


class LevelsGeoJson(BaseModel):
    """The levels as GeoJSON that QuPath imports: each region, its patches, and the cells of each patch.

    Coordinates are pixels of level 0 with y downwards, as QuPath wants them, not the degrees of RFC 7946. Open slides
    that QuPath crops to what was scanned (MIRAX, Leica SCN, …) with its argument `--no-crop`."""

    type: Literal["FeatureCollection"]
    meaning: str = Field(description="As in `SlideLevels`; QuPath does not show it.")
    slide_id: str
    model: str
    encoder_id: str
    features: list[GeoFeature]


def box_of(corner: Iterable[int], side_px: int) -> dict[str, int]:
    """A LevelBox."""
    x, y = corner
    return {"x": int(x), "y": int(y), "width": side_px, "height": side_px}


def counts_of(by_kind: NDArray[np.int64] | None) -> dict[str, int] | None:
    """CellCounts of numbers in the order of CELL_KINDS; None where nobody knows."""
    if by_kind is None:
        return None
    return {"total": int(by_kind.sum()), **dict(zip(CELL_KINDS, by_kind.tolist(), strict=True))}


def cell_of(kind: int, centroid: NDArray[np.float32], polygon: CellPolygon) -> Mapping[str, Any]:
    """A LevelCell; arrays are left to whoever writes JSON. The centroid is of pixels' middles in the file."""
    return {
        "kind": CELL_KINDS[kind],
        "centroid": [float(centroid[0]) + 0.5, float(centroid[1]) + 0.5],
        "contour": polygon.ring,
        "mended": polygon.mended,
    }
