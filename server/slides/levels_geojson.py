"""Features of GeoJSON as QuPath imports them (0.4 and later): regions and patches as annotations, cells as detections.

Dictionaries in the shapes of `server.slides.public_levels`; coordinates are pixels of level 0 with y downwards.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from encoders.hierarchical.cell_kinds import CELL_KINDS, CELL_RGB
from encoders.hierarchical.cell_outlines import CellPolygon

REGION_RGB: Final = (20, 50, 130)
PATCH_RGB: Final = (0, 150, 110)


def area_feature(
    name: str, corner: NDArray[np.integer], side_px: int, measurements: Mapping[str, int], *, is_region: bool
) -> dict[str, Any]:
    """A region or a patch, [2] its corner."""
    x, y = corner.tolist()
    right, bottom = x + side_px, y + side_px
    ring = [[x, y], [right, y], [right, bottom], [x, bottom], [x, y]]
    what, color = ("Given region", REGION_RGB) if is_region else ("Given patch", PATCH_RGB)
    properties = {
        "objectType": "annotation",
        "name": name,
        "classification": {"name": what, "color": color},
        "isLocked": True,
        "measurements": measurements,
    }
    return _feature(ring, properties)


def cell_features(kinds: NDArray[np.uint8], polygons: list[CellPolygon]) -> Iterator[dict[str, Any]]:
    """Cells, by number of their kind."""
    for kind, polygon in zip(kinds.tolist(), polygons, strict=True):
        properties: dict[str, Any] = {"objectType": "detection", "classification": _CLASSES[kind]}
        if polygon.mended:
            properties["mended"] = True
        yield _feature(polygon.ring, properties)


def counted(region: int, by_kind: NDArray[np.int64] | None, rank: int | None = None) -> dict[str, int]:
    """Measurements of a region or a patch; no numbers of cells where nobody knows them."""
    said = {"Region": region} if rank is None else {"Region": region, "Rank": rank}
    if by_kind is None:
        return said
    numbers = {f"Cells: {kind}": int(number) for kind, number in zip(CELL_KINDS, by_kind, strict=True)}
    return said | {"Cells": int(by_kind.sum())} | numbers


_CLASSES = [{"name": kind.capitalize(), "color": CELL_RGB[kind]} for kind in CELL_KINDS]


def _feature(ring: Any, properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": properties}
