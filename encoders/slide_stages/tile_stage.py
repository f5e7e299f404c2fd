"""The base of slide stages over tile features: all but how the rows are made."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.errors import EncoderOverflowed
from encoders.features_file import write_features
from encoders.precomputed.given_features import GivenLevels, GivenTiles
from encoders.slide_stages.read_tiles import encode_inputs, plan_inputs, warnings_of
from encoders.slide_stages.slide_stage import Ask, SlideInHand, SlideStage, Tensors, go_on
from encoders.types import MppSource, SlideWarning, TileFeatures
from model_store.contracts.slide_rows import ROWS
from model_store.contracts.slide_rows import SlideStage as SlideStageSpec
from model_store.contracts.tile_encoder import InputSpec

_GRID_SIDE = 6  # tiles of a golden vector; more than one per row, so that swapped axes show


@dataclass(frozen=True)
class Tiles:
    """The tiles of one input in raster order: features float32 [N, D], level-0 corners int64 [N, 2].

    `tile_px_level0` is None where whoever made the features did not say.
    """

    features: NDArray[np.float32]
    coords: NDArray[np.int64]
    tile_px: int
    tile_px_level0: float | None

    @classmethod
    def of(cls, made: TileFeatures) -> "Tiles":
        """Those of a plan."""
        return cls(made.features, made.plan.coords, made.plan.tile_px, made.plan.tile_px_level0)

    def thinned(self, most: int) -> "Tiles":
        """At most so many of them, evenly spaced in their order, the first and the last among them."""
        if len(self.features) <= most:
            return self
        chosen = np.linspace(0, len(self.features) - 1, most).astype(np.int64)
        return replace(self, features=self.features[chosen], coords=self.coords[chosen])


@dataclass(frozen=True)
class ReadTiles:
    """The tile features of a slide, by input."""

    by_input: Mapping[str, TileFeatures]

    @property
    def _first(self) -> TileFeatures:
        return next(iter(self.by_input.values()))

    @property
    def first_features(self) -> NDArray[np.float32]:
        """Of the first input's tiles [N, D]."""
        return self._first.features

    @property
    def tile_count(self) -> int:
        """Tiles of the first input."""
        return len(self._first.plan.coords)

    @property
    def mpp_source(self) -> MppSource:
        """Who said how large a pixel is."""
        return self._first.plan.mpp_source

    def write(self, path: Path, slide_id: str, encoder_id: str) -> None:
        """The features file: the tiles of the first input."""
        write_features(path, self._first)


class TileStage(SlideStage[ReadTiles]):
    """A slide stage that needs nothing of a slide but the features of its tiles; a kind implements `rows`."""

    def __init__(self, spec: SlideStageSpec, inputs: Mapping[str, InputSpec]) -> None:
        self.spec, self.inputs = spec, inputs

    @abstractmethod
    def rows(self, tiles: Mapping[str, Tiles], ask: Ask) -> NDArray[np.floating]:
        """Tiles of every input → the language model's rows [rows, row_width]."""

    def read(self, slide: SlideInHand) -> ReadTiles:
        """Plans and encodes the tiles of every input."""
        plans = plan_inputs(slide)
        tiles = len(next(iter(plans.values())).coords)
        slide.caller.on_warnings((*warnings_of(list(plans.values())), *thinning(self.spec, tiles, self.inputs)))
        return ReadTiles(encode_inputs(slide, plans))

    def encode(self, read: ReadTiles, ask: Ask = go_on) -> Tensors:
        """The rows alone."""
        return self._tensors({name: Tiles.of(made) for name, made in read.by_input.items()}, ask)

    def encode_given(self, given: GivenTiles | GivenLevels, ask: Ask = go_on) -> Tensors:
        """Given features are those of the one input; a model with several takes none (check_features)."""
        assert isinstance(given, GivenTiles), "levels are refused for it"
        [(name, spec)] = self.inputs.items()
        tiles = Tiles(given.features, given.coords, spec.tiling.tile_px, given.statements.side_px_level0)
        return self._tensors({name: tiles}, ask)

    def warm_up(self) -> None:
        """One tile of every input."""
        self._tensors({name: _blank(spec) for name, spec in self.inputs.items()}, go_on)

    def golden_input(self, rng: np.random.Generator) -> dict[str, NDArray[np.generic]]:
        """`slide_features` [L, D] and `slide_coords` [L, 2], level-0 px; of several inputs `<name>.slide_features` …"""
        x, y = np.meshgrid(np.arange(_GRID_SIDE), np.arange(_GRID_SIDE))
        cells = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.int64)
        made: dict[str, NDArray[np.generic]] = {}
        for name, spec in self.inputs.items():
            width = spec.tile_encoder.feature_dim
            made[self._golden(name, "slide_features")] = rng.standard_normal((len(cells), width), dtype=np.float32)
            made[self._golden(name, "slide_coords")] = cells * spec.tiling.tile_px
        return made

    def golden_output(self, given: Mapping[str, NDArray[np.generic]]) -> Tensors:
        """Those tiles lie at the target resolution on level 0."""
        tiles = {}
        for name, spec in self.inputs.items():
            features = given[self._golden(name, "slide_features")].astype(np.float32, copy=False)
            coords = given[self._golden(name, "slide_coords")].astype(np.int64, copy=False)
            if features.shape != (len(coords), spec.tile_encoder.feature_dim) or coords.shape != (len(features), 2):
                raise ValueError("features or coordinates of the golden vector have another shape")
            side = spec.tiling.tile_px
            tiles[name] = Tiles(features, coords, side, side)
        return self._tensors(tiles, go_on)

    def _golden(self, name: str, array: str) -> str:
        return array if len(self.inputs) == 1 else f"{name}.{array}"

    def _tensors(self, tiles: Mapping[str, Tiles], ask: Ask) -> Tensors:
        with np.errstate(over="ignore"):  # said below
            half = self.rows(tiles, ask).astype(np.float16)
        if not np.isfinite(half).all():
            raise EncoderOverflowed(
                "The slide's rows are beyond the range of 16-bit floats; use another model or dtype."
            )
        return {ROWS: half}


def thinning(spec: SlideStageSpec, tiles: int, inputs: Mapping[str, InputSpec]) -> tuple[SlideWarning, ...]:
    """Says when a slide has more tiles than the language model is given rows for, one each."""
    most = spec.thinned_to(tiles, inputs)
    if most is None:
        return ()
    detail = f"The slide has {tiles} tiles and the model takes {most}: evenly spaced ones are used, others not seen."
    return (SlideWarning("tiles_thinned", detail),)


def _blank(spec: InputSpec) -> Tiles:
    side = spec.tiling.tile_px
    features = np.zeros((1, spec.tile_encoder.feature_dim), dtype=np.float32)
    return Tiles(features, np.zeros((1, 2), dtype=np.int64), side, side)
