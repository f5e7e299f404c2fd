"""The contract of a slide stage: which rows it makes for the language model of a slide, as a manifest describes it.

A kind says here, without weights and without torch, everything that the API, the converter and the plugin's config
need: which inputs it takes, how many rows come out and how wide they are, which of its files hold weights, and what of
it belongs into the encoder id. The kinds are in `slide_stage` and `hierarchical`; what computes is in
`encoders.slide_stages`, by the same name.

Embeddings are named tensors. The one that the language model gets is ROWS [rows, row_width]; others are for people.
It never sees the question: that is what makes an embedding cacheable.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from model_store.contracts.fields import Dtype, Table
from model_store.contracts.region_grid import Cut
from model_store.contracts.tile_encoder import InputSpec

ROWS: Final = "slide_tokens"
# As many as an API's probe of the language model asks with, where a stage gives a row for each tile.
_FEW_ROWS: Final = 64


class SlideStage(Table, ABC):
    """The contract of every kind: what a slide stage says of itself before it is loaded."""

    # Whether the rows themselves may be given in a file, in place of tile features.
    rows_can_be_given: ClassVar[bool] = True

    @property
    def needs_side_px_level0(self) -> bool:
        """Whether a tile's side in level-0 pixels is needed, which features from elsewhere may not state."""
        return False

    @abstractmethod
    def check_inputs(self, inputs: Mapping[str, InputSpec]) -> None:
        """Raises ValueError when these are not the inputs that it takes."""

    def cut(self, inputs: Mapping[str, InputSpec]) -> Cut:
        """How the slide is cut: what is planned, shown to people and counted. Of several inputs that of the first."""
        return next(iter(inputs.values())).tiling

    def given_tiles(self, inputs: Mapping[str, InputSpec]) -> InputSpec | None:
        """The input whose features may be given in a file, in place of a slide's pixels; None where none may."""
        return next(iter(inputs.values())) if len(inputs) == 1 else None

    @abstractmethod
    def row_width(self, inputs: Mapping[str, InputSpec]) -> int:
        """Columns of ROWS."""

    @abstractmethod
    def least_rows(self, inputs: Mapping[str, InputSpec]) -> int:
        """The fewest rows that a slide can have."""

    @abstractmethod
    def most_rows(self, inputs: Mapping[str, InputSpec]) -> int:
        """The most that it can have; the same where the number is fixed."""

    def rows_of(self, tiles: int, inputs: Mapping[str, InputSpec]) -> int:
        """Rows of a slide of so many tiles."""
        least, most = self.least_rows(inputs), self.most_rows(inputs)
        return min(max(tiles, least), most)

    def thinned_to(self, tiles: int, inputs: Mapping[str, InputSpec]) -> int | None:
        """How many of so many tiles are used where there is a row for each and too many; None where all are."""
        most = self.most_rows(inputs)
        return most if tiles > most and self.least_rows(inputs) != most else None

    def blank_rows(self, inputs: Mapping[str, InputSpec]) -> int:
        """Rows of the blank slide that the language model is probed with: of full size where the number is fixed."""
        return min(self.most_rows(inputs), max(self.least_rows(inputs), _FEW_ROWS))

    def computes_in(self) -> Dtype:
        """The coarsest numbers on the way to its rows."""
        return "float32"

    def weights_files(self) -> dict[str, str]:
        """Its files of weights by the part's name; empty for a stage that learned nothing."""
        return {}

    def identity(self, digests: Mapping[str, str]) -> dict[str, Any]:
        """What changes its rows, the digests of its weights among it, as entries of the encoder id."""
        described = self.model_dump(mode="json", exclude={"weights"})
        return {"slide_stage": described, **{f"{part}_sha256": digests[path] for part, path in self._files()}}

    def _files(self) -> list[tuple[str, str]]:
        return sorted(self.weights_files().items())
