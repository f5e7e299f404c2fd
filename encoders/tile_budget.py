"""A tile budget: at most so many of a slide's tiles, evenly spaced or drawn, the same ones every time.

It shows what a slide seen in part costs, and what its answers lose. Which tiles are taken depends on the slide's id,
their number, the choice and the seed alone, so the encoder id that names the budget names the embedding.
"""

import hashlib
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

TileChoice = Literal["uniform", "random"]


@dataclass(frozen=True)
class TileBudget:
    """At most `tiles` of each input, or regions where the model reads those.

    "uniform" takes evenly spaced ones of the plan's order, the first and the last among them, as SlideChat thins;
    "random" draws without replacement. Either way their order stays the plan's.
    """

    tiles: int
    choice: TileChoice = "uniform"
    seed: int = 0

    def identity(self) -> dict[str, Any]:
        """What of it changes an embedding: a uniform choice has no seed."""
        return {name: value for name, value in asdict(self).items() if name != "seed" or self.choice == "random"}

    def of_slide(self, slide_id: str) -> Self:
        """The same with a seed that is this slide's own: slides of equally many tiles do not all lose the same."""
        digest = hashlib.sha256(f"{slide_id}\x1f{self.tiles}\x1f{self.seed}".encode()).digest()
        return replace(self, seed=int.from_bytes(digest[:6]))

    def chosen(self, planned: int) -> NDArray[np.int64]:
        """Places in the plan, int64 [min(tiles, planned)], rising."""
        if planned <= self.tiles:
            return np.arange(planned, dtype=np.int64)
        if self.choice == "uniform":
            return np.linspace(0, planned - 1, self.tiles).astype(np.int64)
        rng = np.random.default_rng(self.seed)
        return np.sort(rng.choice(planned, self.tiles, replace=False)).astype(np.int64)
