"""`eyepiece models familiarity`: what a model was made for, of a folder of such slides."""

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from encoders.caller import Caller
from encoders.errors import ReaderDied, SlideError
from encoders.familiarity import FamiliarityStatistics, fit, keep_statistics, read_statistics
from encoders.features_file import read_features
from encoders.pipeline import Encoders, encode_slide, load_encoders
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.types import SlideFile
from model_store.errors import ModelError
from model_store.installed import InstalledModel
from model_store.packaged_models import packaged_models


def record_statistics(model: InstalledModel, folder: Path, device: str, limits: ReaderLimits) -> None:
    """Encodes every slide of the folder as a worker does, and keeps statistics of their tiles with the model.

    Raises ModelError for a model that ships with its own, or has no tiles, and for too few slides.
    """
    if model.manifest.name in packaged_models():
        raise ModelError(f"Model {model.manifest.name!r} ships with its statistics; install yours under another name.")
    if model.manifest.reads != "tiles":
        raise ModelError("The model reads regions of a slide, not tiles; there are no statistics for it.")
    if not folder.is_dir():
        raise ModelError("There is no such folder; name one with slides of the kind that the model was made for.")
    with load_encoders(model, device) as encoders:
        slides = list(_tile_features(encoders, folder, limits))
    print(f"familiarity    {statistics_line(read_statistics(keep_statistics(model, fit(slides))))}")


def statistics_line(found: FamiliarityStatistics | None) -> str:
    """Of how many slides, for people."""
    if found is None:
        return "no statistics: nobody is told whether a slide is like those that the model was made for"
    return f"statistics of {found.slides} slides, {found.tiles:,} tiles"


def _tile_features(encoders: Encoders, folder: Path, limits: ReaderLimits) -> Iterator[NDArray[Any]]:
    """Of each slide [n, D]; what cannot be encoded is said and passed over."""
    for number, path in enumerate(sorted(it for it in folder.iterdir() if it.is_file()), 1):
        slide = SlideFile(hashlib.sha256(path.name.encode()).hexdigest(), path)
        with tempfile.TemporaryDirectory(prefix="eyepiece-familiarity-") as scratch:
            features = Path(scratch) / "features.h5"
            try:
                encode_slide(slide, encoders, mpp_override=None, limits=limits, features_path=features, caller=Caller())
            except (SlideError, ReaderDied) as error:
                print(f"file {number} is passed over: {error.detail}")
                continue
            found = read_features(features).features
            print(f"file {number}: {len(found)} tiles", flush=True)
            yield found
