"""Recipes of the synthetic slides. Knows nothing of how they are drawn."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Coding:
    """YCbCr with halved chroma (4:2:0), or RGB as it is (4:4:4), at a quality of 0 to 100."""

    quality: int
    is_rgb: bool


@dataclass(frozen=True)
class SlideRecipe:
    """One slide; `steps` are the factors from one level to the next, all divisors of `tile_px`.

    About so many `pieces` of tissue and gaps lie along the longer side.
    """

    name: str
    width_px: int
    height_px: int
    mpp: float
    tile_px: int
    steps: tuple[int, ...]
    coding: Coding
    is_aperio: bool
    tissue_share: float = 0.31
    pieces: int = 7
    seed: int = 0

    @property
    def columns(self) -> int:
        """Tiles in a row of level 0."""
        return -(-self.width_px // self.tile_px)

    @property
    def rows(self) -> int:
        """Rows of tiles of level 0."""
        return -(-self.height_px // self.tile_px)


_YCC_85 = Coding(quality=85, is_rgb=False)
_RGB_70 = Coding(quality=70, is_rgb=True)
RECIPES = {
    recipe.name: recipe
    for recipe in (
        # A 40× Aperio scan: no level at the 0.5 µm/px that encoders want.
        SlideRecipe("s420", 60_000, 50_000, 0.25, 256, (4, 4, 4), _YCC_85, True),
        # The same as a generic TIFF, whose level 1 is what encoders want.
        SlideRecipe("pow2", 60_000, 50_000, 0.25, 256, (2, 2, 2, 2, 2, 2), _YCC_85, False),
        SlideRecipe("srgb444", 24_000, 20_000, 0.25, 256, (4, 4), _RGB_70, True),
        # 20×, JPEG tiles that no grid of 256 px fits: as OpenSlide's CMU-1-Small-Region has them.
        SlideRecipe("t240", 24_000, 20_000, 0.5, 240, (4, 4), _RGB_70, True),
        # A level at 0.5 µm/px that fits into memory whole: what prov-gigapath's tiling needs.
        SlideRecipe("pow2small", 24_000, 20_000, 0.25, 256, (2, 2, 2, 2), _YCC_85, False),
    )
}
