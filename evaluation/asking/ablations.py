"""Ablations: the questions with a slide that lacks something, each beside "as is" on the same rows.

tiles shuffled        every tile has the features of another place: what the places of tiles are worth
regions shuffled      the same for a model that reads regions: what their order is worth
1,000 tiles           a tile budget, evenly spaced
1,000 tiles, draw 2   the same, drawn at random; draws show how much depends on which tiles they are

They are conditions like all others, and only an Eyepiece can be asked under them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from evaluation.asking.conditions import AS_IS, BLANK, Condition

TILES_SHUFFLED: Final[Condition] = "tiles shuffled"
REGIONS_SHUFFLED: Final[Condition] = "regions shuffled"
BUDGETS: Final = (100, 1_000, 10_000)
DRAWS: Final = 3
Reads = Literal["tiles", "regions"]


@dataclass(frozen=True)
class Budget:
    """A tile budget; `draw` counts random ones from 1, 0 is the evenly spaced one."""

    tiles: int
    draw: int = 0

    @property
    def condition(self) -> Condition:
        """What it is called in a run."""
        return f"{self.tiles:,} tiles" + (f", draw {self.draw}" if self.draw else "")

    def as_request(self) -> dict[str, object]:
        """The `tile_budget` of Eyepiece's encode request."""
        return {"tiles": self.tiles, "choice": "random" if self.draw else "uniform", "seed": self.draw}


def budgets_of(tiles: Sequence[int], draws: int) -> Iterator[Budget]:
    """Every number of tiles evenly spaced, and in so many draws."""
    yield from (Budget(number, draw) for number in tiles for draw in range(draws + 1))


def without_budget(reads: Reads) -> tuple[Condition, ...]:
    """The conditions that need no other encode of the slide, for a model that reads tiles or regions."""
    return (AS_IS, BLANK, TILES_SHUFFLED if reads == "tiles" else REGIONS_SHUFFLED)
