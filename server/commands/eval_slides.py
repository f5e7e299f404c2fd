"""Specimens for `eyepiece eval-demo`: drawn, or made of the features of a drawn one, uploaded and ready to be asked.

Slides are drawn in another process while earlier ones are encoded.
"""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import h5py
import numpy as np
from rich.console import Console

from evaluation.exam import MADE_OF_FEATURES, Specimen
from server.commands.api_client import ApiClient
from server.commands.upload import UploadOptions, upload_and_wait
from synthetic.write_slide import write_synthetic_slide

# One slide is drawn while another is encoded and a third is on its way.
AT_ONCE: Final = 3
# Features are of the size of one.
_BLANK_NOISE: Final = 0.01
# Of tiles, and of regions (encoders/hierarchical/levels_file.py): a row for each place.
_BY_PLACE: Final = ("features", "regions/features", "patches/index", "patches/features", "cells/features")
_OF_THE_SLIDE: Final = ("slide/features",)


@dataclass(frozen=True)
class ReadySlide:
    """A specimen as the server knows it."""

    specimen: Specimen
    slide_id: str


def ready_slides(client: ApiClient, specimens: Iterable[Specimen], folder: Path) -> Iterator[ReadySlide]:
    """Every specimen, as it gets ready: drawn ones first. `folder` is for files on their way.

    Raises:
        CommandError: the server refused one, or it failed.
    """
    drawn = [specimen for specimen in specimens if specimen.variant not in MADE_OF_FEATURES]
    made = [specimen for specimen in specimens if specimen.variant in MADE_OF_FEATURES]
    ids: dict[Specimen, str] = {}
    # Started anew rather than forked: threads are running here.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as artists:
        for ready in _in_parallel(lambda specimen: _drawn(client, specimen, folder, artists), drawn):
            ids[ready.specimen] = ready.slide_id
            yield ready
    yield from _in_parallel(lambda specimen: _made(client, specimen, folder, ids[Specimen(specimen.seed)]), made)


def rearrange_features(path: Path, specimen: Specimen) -> None:
    """Changes a downloaded features file, or one of levels, in place; tiles or regions stay where tissue is.

    "shuffled" gives every tile or region the features of another place; "blank" leaves nothing of any but a hundredth
    of noise, the same for every slide: a server refuses features that are zero or all alike.
    """
    with h5py.File(path, "r+") as file:
        by_place = [name for name in _BY_PLACE if name in file]
        if specimen.variant == "blank":
            for name in (*by_place, *(name for name in _OF_THE_SLIDE if name in file)):
                if file[name].dtype.kind == "f":
                    file[name][...] = np.random.default_rng(0).normal(0.0, _BLANK_NOISE, file[name].shape)
        else:
            order = np.random.default_rng([specimen.seed, 4]).permutation(len(file[by_place[0]]))
            for name in by_place:
                file[name][...] = file[name][()][order]
        if "cells/found" in file:  # they lie in the regions that were there
            del file["cells/found"]


def _drawn(client: ApiClient, specimen: Specimen, folder: Path, artists: ProcessPoolExecutor) -> ReadySlide:
    path = folder / f"{specimen.seed}-{specimen.variant}.svs"
    artists.submit(draw, path, specimen).result()
    return _uploaded(client, specimen, path)


def draw(path: Path, specimen: Specimen) -> None:
    """The slide's file. The same field of view in each variant: at 0.25 µm/px it has four times the pixels."""
    write_synthetic_slide(
        path,
        seed=specimen.seed,
        mpp=0.25 if specimen.variant == "finer" else 0.5,
        # Any seed but the slide's own, which is what it is stained with otherwise.
        stain_seed=specimen.seed + 1_000_003 if specimen.variant == "restained" else None,
    )


def _made(client: ApiClient, specimen: Specimen, folder: Path, original: str) -> ReadySlide:
    path = folder / f"{specimen.seed}-{specimen.variant}.h5"
    path.write_bytes(client.features(original))
    rearrange_features(path, specimen)
    return _uploaded(client, specimen, path)


def _uploaded(client: ApiClient, specimen: Specimen, path: Path) -> ReadySlide:
    slide = upload_and_wait(client, UploadOptions(path), Console(quiet=True))
    path.unlink()
    return ReadySlide(specimen, slide["id"])


def _in_parallel(work: Callable[[Specimen], ReadySlide], specimens: Iterable[Specimen]) -> Iterator[ReadySlide]:
    """The outcomes as they come; the first failure ends all that has not begun."""
    threads = ThreadPoolExecutor(AT_ONCE)
    try:
        futures: list[Future[ReadySlide]] = [threads.submit(work, specimen) for specimen in specimens]
        for future in as_completed(futures):
            yield future.result()
    finally:
        threads.shutdown(cancel_futures=True)
