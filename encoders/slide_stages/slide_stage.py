"""The contract of a slide stage that computes: pixels of an open slide in, named tensors out.

Two halves, because a slide's reader is closed before the device is asked for a whole slide: `read` needs pixels, may
take hours and goes on where a killed attempt stopped; `encode` has the device to itself. What is known of a kind
without weights is in `model_store.contracts.slide_stage`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from encoders.caller import Caller
from encoders.precomputed.given_features import GivenLevels, GivenTiles
from encoders.slide_stages.tile_input import TileInput
from encoders.tile_budget import TileBudget
from encoders.tiling.isolation.reader_process import ReaderProcess
from encoders.types import MppSource

# By name, as they are stored; model_store.contracts.slide_rows.ROWS is among them.
Tensors = Mapping[str, NDArray[np.generic]]
Ask = Callable[[], None]


def go_on() -> None:
    """For a caller that never stops."""


@dataclass(frozen=True)
class SlideInHand:
    """A slide that is open: its reader, what sees its tiles, who wants it encoded, and of how many tiles at most.

    `budget` is the slide's own (`TileBudget.of_slide`)."""

    reader: ReaderProcess
    inputs: Mapping[str, TileInput]
    mpp_override: float | None
    caller: Caller
    budget: TileBudget | None = None


class ReadSlide(Protocol):
    """All that a stage needs of a slide, once its pixels are no longer needed."""

    @property
    def tile_count(self) -> int:
        """Tiles of the first input."""

    @property
    def mpp_source(self) -> MppSource:
        """Who said how large a pixel is."""

    def write(self, path: Path, slide_id: str, encoder_id: str) -> None:
        """Write the features file, whole or not at all; the ids are for whoever states them in it."""


Read = TypeVar("Read", bound=ReadSlide)


class SlideStage(ABC, Generic[Read]):
    """One kind of slide stage with its weights, on one device. One slide at a time computes, others may be read."""

    @abstractmethod
    def read(self, slide: SlideInHand) -> Read:
        """Everything that needs the slide's pixels; tells the caller of its progress, keeps what is ready in parts.

        Raises a SlideError, ReaderDied, EncodeCancelled, DeviceLost or DeviceOutOfMemory.
        """

    @abstractmethod
    def encode(self, read: Read, ask: Ask = go_on) -> Tensors:
        """The slide's tensors; `ask` is called all along, and stops it by raising.

        Raises SlideTooLarge, EncoderOverflowed for a result that is not finite, DeviceOutOfMemory and DeviceLost.
        """

    @abstractmethod
    def encode_given(self, given: GivenTiles | GivenLevels, ask: Ask = go_on) -> Tensors:
        """The same of tile features or levels that were given to us, whichever the kind reads (check_features)."""

    def close(self) -> None:
        """Ends its threads, where it has any; no slide is in hand."""

    @abstractmethod
    def warm_up(self) -> None:
        """Runs the smallest slide there is, as slides will be."""

    @abstractmethod
    def golden_input(self, rng: np.random.Generator) -> dict[str, NDArray[np.generic]]:
        """A small seeded slide for the golden vector, as arrays by name: no pixels, what `read` would have made."""

    @abstractmethod
    def golden_output(self, given: Mapping[str, NDArray[np.generic]]) -> Tensors:
        """What it makes of `golden_input`; raises KeyError or ValueError for arrays that are not such."""
