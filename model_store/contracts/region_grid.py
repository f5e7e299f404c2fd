"""How a slide is cut into regions, for a slide stage that looks at all levels of them itself."""

from typing import Annotated, Literal

from pydantic import Field

from model_store.contracts.fields import Positive, Table
from model_store.contracts.tile_encoder import TilingSpec


class RegionGrid(Table):
    """Squares of `region_px` level-0 pixels where tissue is, as MLLM-HWSI's public code lays them.

    Tissue is an outline of more than a hundred squares of `tissue_unit_px` level-0 pixels, a hole one of more than 16.
    `step_level`: grids step by `region_px` pixels of that level; 0 puts regions side by side. On a slide that has fewer
    levels they step by its last. `order` "outlines": each outline of tissue has a grid of its own, outlines come as
    OpenCV finds them, and a grid goes down before it goes right. `edge`: a region that crosses the slide's right or
    lower edge is skipped, or white beyond it.
    """

    region_px: Positive
    tissue_unit_px: Positive
    step_level: Annotated[int, Field(ge=0, le=15)]
    order: Literal["outlines"]
    edge: Literal["skipped", "white"]

    @property
    def tile_px(self) -> int:
        """Pixels of a region's side: it is read as it is."""
        return self.region_px

    @property
    def target_mpp(self) -> None:
        """None: level 0 is read, whatever its resolution."""
        return


# How a slide is cut: into tiles for a tile encoder, or into regions of which a stage makes all else itself.
Cut = TilingSpec | RegionGrid
