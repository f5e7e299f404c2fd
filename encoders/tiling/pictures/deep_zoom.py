"""DeepZoom's geometry: a slide as a pyramid of square tiles, each level half of the next one, down to a single pixel.

Level 0 is one pixel, the last level is the slide's level 0. Sizes are rounded up, tiles do not overlap, and those at
the right and lower edge are cut. A pixel of a level covers scale × scale pixels of the slide.
"""

from dataclasses import dataclass

TILE_PX = 256


@dataclass(frozen=True)
class TilePlace:
    """A tile's corner and size in the pixels of its level."""

    scale: int
    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class DeepZoom:
    """The pyramid of a slide of this size in pixels."""

    width: int
    height: int

    @property
    def level_count(self) -> int:
        """Levels, the one-pixel level among them."""
        return (max(self.width, self.height) - 1).bit_length() + 1

    def scale(self, level: int) -> int:
        """Pixels of the slide a side of one pixel of the level; a power of two."""
        return 1 << (self.level_count - 1 - level)

    def size(self, level: int) -> tuple[int, int]:
        """(width, height) of the level in its own pixels."""
        scale = self.scale(level)
        return -(-self.width // scale), -(-self.height // scale)

    def grid(self, level: int) -> tuple[int, int]:
        """(columns, rows) of the level's tiles."""
        width, height = self.size(level)
        return -(-width // TILE_PX), -(-height // TILE_PX)

    def place(self, level: int, column: int, row: int) -> TilePlace | None:
        """Where a tile lies; None when there is none at this address."""
        if not 0 <= level < self.level_count:
            return None
        columns, rows = self.grid(level)
        if not (0 <= column < columns and 0 <= row < rows):
            return None
        (width, height), left, top = self.size(level), column * TILE_PX, row * TILE_PX
        return TilePlace(self.scale(level), left, top, min(TILE_PX, width - left), min(TILE_PX, height - top))
