"""The kinds `mean` and `none`: tile features to rows without anything learned in between."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from encoders.slide_stages.slide_stage import Ask
from encoders.slide_stages.tile_stage import Tiles, TileStage
from model_store.contracts.slide_stage import Untouched


class MeanStage(TileStage):
    """One row for each input, in the manifest's order."""

    def rows(self, tiles: Mapping[str, Tiles], ask: Ask) -> NDArray[np.floating]:
        """[inputs, feature_dim]; summed in 64 bits, so that it does not depend on how many tiles there are."""
        return np.stack([one.features.mean(axis=0, dtype=np.float64) for one in tiles.values()])


class UntouchedStage(TileStage):
    """The features themselves."""

    spec: Untouched

    def rows(self, tiles: Mapping[str, Tiles], ask: Ask) -> NDArray[np.floating]:
        """[N, feature_dim], thinned beyond `max_rows`."""
        [one] = tiles.values()
        return one.thinned(self.spec.max_rows).features
