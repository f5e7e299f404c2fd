"""The reader that tiling needs, whoever decodes. Coordinates are level-0 pixels, x to the right, y down."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from encoders.errors import UnreadableSlide
from encoders.types import SlideFacts
from model_store.contracts.tile_encoder import Reduction

# What a tile may lack of pixels: a seam between two fields of a camera, or the rounding of a low level's border.
MAX_HOLE_SHARE = 0.10


@dataclass(frozen=True)
class Level:
    """One level of the pyramid: its size in its own pixels, and level-0 pixels per pixel.

    What is not exact is good enough to find tissue in; `read_region` may be some grey levels off, so no tile is read
    from it.
    """

    width: int
    height: int
    downsample: float
    is_exact: bool = True


class Scale(NamedTuple):
    """1/factor (2, 4 or 8) of a level's size a side.

    "area" is the mean over factor × factor pixels, the same from every reader; "dct" is approximate where a JPEG
    decoder reduces in the frequency domain, and the mean elsewhere.
    """

    factor: int
    reduction: Reduction


class SlideReader(Protocol):
    """An open slide. Facts and levels are taken on opening and stay valid after read errors."""

    @property
    def facts(self) -> SlideFacts:
        """What the file says of itself."""

    @property
    def levels(self) -> tuple[Level, ...]:
        """Finest first; level 0 has downsample 1."""

    @property
    def tile_sizes(self) -> tuple[tuple[int, int] | None, ...]:
        """(width, height) of each level's stored tiles, in its own pixels; None where it is not known."""

    def read_region(
        self, x: int, y: int, level: int, width: int, height: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """RGB uint8 [height, width, 3] of `level`, upper left corner at level-0 (x, y), white outside the slide.

        With `out` (that shape, C-contiguous) it writes there and returns it. Raises UnreadableSlide naming the
        level-0 rectangle where it is damaged, or where the file has no pixels for more than `MAX_HOLE_SHARE` of what
        lies in the slide; the reader stays usable, what `out` then holds is undefined. Safe to call from threads.
        """

    def read_covered(
        self, x: int, y: int, level: int, width: int, height: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        """A region as from `read_region`, and bool [height, width]: where the file has pixels, None for everywhere.

        White where it has none. Outside the slide counts as none. Raises UnreadableSlide for damage only.
        """

    def empty_tiles(self, level: int) -> NDArray[np.bool_] | None:
        """Bool [rows, columns]: the level's stored tiles that have no bytes; None where the reader does not know."""

    def read_reduced(
        self,
        x: int,
        y: int,
        level: int,
        width: int,
        height: int,
        scale: Scale,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """RGB uint8 [ceil(height / factor), ceil(width / factor), 3]: the same region, smaller.

        A pixel covers factor × factor pixels of `level`, the last ones beyond the region if need be. `out` and errors
        as in `read_region`.
        """

    def tile_bytes(self, level: int) -> NDArray[np.int64] | None:
        """Compressed bytes [rows, columns] of the level's JPEG tiles, where the reader knows them."""


def damaged(facts: SlideFacts, x: int, y: int, width: int, height: int) -> UnreadableSlide:
    """The error for a level-0 rectangle that cannot be read, clipped to the slide."""
    right, bottom = min(x + width, facts.width), min(y + height, facts.height)
    return UnreadableSlide(
        f"The slide is damaged in the level-0 rectangle ({x}, {y}) – ({right}, {bottom}); upload an intact copy."
    )


def not_scanned(facts: SlideFacts, x: int, y: int, width: int, height: int) -> UnreadableSlide:
    """The error for a level-0 rectangle that has no pixels though tissue is said to lie there, clipped to the slide."""
    right, bottom = min(x + width, facts.width), min(y + height, facts.height)
    return UnreadableSlide(
        f"The file has no pixels in the level-0 rectangle ({x}, {y}) – ({right}, {bottom}), where its overview shows "
        "tissue; upload a complete copy, without an alpha channel, or scan the slide again."
    )


def cut_off() -> UnreadableSlide:
    """The error for a file whose directory promises more than there is."""
    return UnreadableSlide("The file is shorter than its directory says: it was cut off on the way; upload it again.")
