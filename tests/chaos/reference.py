"""What an undisturbed run makes of a slide: the pipeline alone, in this process, without queue, store or kills."""

from collections.abc import Mapping
from pathlib import Path

import torch

from encoders.caller import Caller
from encoders.pipeline import Encoders, encode_slide, load_encoders
from encoders.tiling.isolation.reader_process import ReaderLimits
from encoders.types import SlideEmbedding, SlideFile
from model_store.installed import InstalledModel


def undisturbed(model: InstalledModel, slides: Mapping[str, Path], scratch: Path) -> dict[str, SlideEmbedding]:
    """The embedding of every slide, by slide id, added up by one thread as the workers do it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with load_encoders(model, "cpu") as encoders:
            return {slide_id: _encode(slide_id, path, encoders, scratch) for slide_id, path in slides.items()}
    finally:
        torch.set_num_threads(threads)


def _encode(slide_id: str, path: Path, encoders: Encoders, scratch: Path) -> SlideEmbedding:
    slide, limits = SlideFile(slide_id, path, None), ReaderLimits()
    features = scratch / f"{slide_id}.h5"
    return encode_slide(slide, encoders, mpp_override=None, limits=limits, features_path=features, caller=Caller())
