"""Slides of a question set for who is asked: uploaded to an Eyepiece, or drawn as pictures for an endpoint."""

import csv
import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from encoders.errors import SlideError
from evaluation.asking.conditions import Ask, Shown, shown_slides
from evaluation.asking.targets import THUMBNAIL_PX, View
from evaluation.benchmark.items import slide_name
from evaluation.errors import UnreadableSet
from evaluation.exam import Specimen
from server.commands.api_client import ApiClient
from server.commands.encode_for_model import ready_encoder, served_model
from server.commands.eval_slides import rearrange_features
from server.commands.evaluate_progress import progress_bar
from server.commands.options import settings_from
from server.commands.outcome import CommandError, ExitCode
from server.commands.read_here import read_here
from server.commands.upload import UploadOptions, upload_and_wait

SlidePaths = Mapping[str, Path]
# Large patches at low power given together, as in arXiv 2606.12407: a thumbnail alone understates a rival.
MOSAIC_PATCHES: Final = 6
_MOSAIC_PX: Final = 2048
_PATCH_PX: Final = 512
_JPEG_QUALITY: Final = 90
_PICTURES_KEPT: Final = 256


def slide_paths(where: Path, slides: Sequence[str]) -> SlidePaths:
    """The file of each slide, by name: in a folder, at any depth, or as a CSV of slide,path says.

    Raises:
        UnreadableSet: a slide has no file, or two.
    """
    if where.is_file():
        with where.open(encoding="utf-8-sig", newline="") as table:
            named = {row["slide"]: where.parent / row["path"] for row in csv.DictReader(table)}
        found = {slide: [named[slide]] if slide in named else [] for slide in slides}
    else:
        by_name: dict[str, list[Path]] = {}
        for path in sorted(where.rglob("*")):
            if path.is_file() and slide_name(path.name) != path.name:
                by_name.setdefault(slide_name(path.name), []).append(path)
        found = {slide: by_name.get(slide, []) for slide in slides}
    missing = [slide for slide, paths in found.items() if not paths]
    if missing:
        raise UnreadableSet(f"{len(missing)} slides have no file, the first of them {missing[0]}: name all of them.")
    if twice := [slide for slide, paths in found.items() if len(paths) > 1]:
        raise UnreadableSet(f"{twice[0]} has several files: give a CSV of slide,path.")
    return {slide: paths[0] for slide, paths in found.items()}


def eyepiece_slides(
    client: ApiClient, asks: Sequence[Ask], paths: SlidePaths, model: str | None, *, lift_budgets: bool = False
) -> tuple[dict[Shown, str], dict[str, Any]]:
    """Uploads all that will be shown and waits until it is encoded; ids, and the model with its encoder.

    A blank slide is another one's features with nothing in them, a shuffled one its own in other places.

    A slide may have a tile budget from an earlier run of ablations: with `lift_budgets` it is encoded of all its tiles.

    Raises:
        CommandError: the server refused one, or it failed, or it has a tile budget; or there is no such model.
    """
    models = {str(found["id"]): found for found in client.models()}
    name = served_model(models, model)
    ids: dict[Shown, str] = {}
    encoders: set[str] = set()
    wanted = list(shown_slides(asks))
    with (
        tempfile.TemporaryDirectory(prefix="eyepiece-evaluate-") as folder,
        progress_bar("slides", len(wanted)) as advance,
    ):
        for shown in wanted:
            path = paths[shown.slide]
            if shown.kind != "slide":
                path = Path(folder) / f"made-{len(ids)}.h5"
                path.write_bytes(client.features(ids[Shown("slide", shown.slide)]))
                rearrange_features(
                    path, Specimen(_seed_of(shown.slide), "blank" if shown.kind == "blank" else "shuffled")
                )
            slide = upload_and_wait(client, UploadOptions(path), Console(quiet=True))
            if any(warning["code"] == "tile_budget" for warning in slide["warnings"]):
                slide = _of_all_tiles(client, slide, shown.slide, lift_budgets)
            ids[shown] = str(slide["id"])
            encoders.add(ready_encoder(client, slide, name))
            advance()
    kept = ("id", "title", "quantization", "kind", "licence", "notice")
    return ids, {**{field: models[name].get(field) for field in kept}, "encoder_ids": sorted(encoders)}


def _of_all_tiles(client: ApiClient, slide: dict[str, Any], name: str, lift_budgets: bool) -> dict[str, Any]:
    if not lift_budgets:
        raise CommandError(
            f"{name} is encoded within a tile budget: it would be asked about in part. Encode it with `tile_budget` "
            "`all` first.",
            ExitCode.FAILED,
        )
    return client.encode(slide["id"], None, urgent=False, tile_budget="all")


def pictures_of(paths: SlidePaths, view: View) -> Callable[[Shown], Sequence[bytes]]:
    """JPEG pictures of what is shown, made once each: the thumbnail, and for a mosaic the patches with most tissue."""

    @lru_cache(_PICTURES_KEPT)
    def pictures(shown: Shown) -> tuple[bytes, ...]:
        whole = _read(paths[shown.slide], _MOSAIC_PX if view == "mosaic" else THUMBNAIL_PX)
        if shown.kind == "blank":
            whole = np.full_like(whole, 255)
        small = _within(whole, THUMBNAIL_PX)
        return tuple(as_jpeg(rgb) for rgb in ((small, *mosaic_patches(whole)) if view == "mosaic" else (small,)))

    return pictures


def mosaic_patches(whole: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """The patches with most tissue, in reading order; tissue is what has colour."""
    height, width = whole.shape[:2]
    colour = whole.max(axis=2).astype(np.int16) - whole.min(axis=2)
    places = [(top, left) for top in range(0, height, _PATCH_PX) for left in range(0, width, _PATCH_PX)]

    def tissue(place: tuple[int, int]) -> float:
        top, left = place
        return float((colour[top : top + _PATCH_PX, left : left + _PATCH_PX] > 20).sum())

    chosen = sorted(sorted(places, key=tissue, reverse=True)[:MOSAIC_PATCHES])
    return [whole[top : top + _PATCH_PX, left : left + _PATCH_PX] for top, left in chosen]


def as_jpeg(rgb: NDArray[np.uint8]) -> bytes:
    """The picture [height, width, 3], compressed."""
    bgr = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2BGR)
    encoded, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert encoded, "JPEG takes every RGB picture"
    return np.asarray(jpeg).tobytes()


def _seed_of(slide: str) -> int:
    """Slides of equally many tiles are not all shuffled alike."""
    return int.from_bytes(hashlib.sha256(slide.encode()).digest()[:6])


def _read(path: Path, max_px: int) -> NDArray[np.uint8]:
    """The tissue picture of a slide, in a reader process."""
    try:
        with read_here(path, settings_from()) as (_, reader):
            png = reader.thumbnail(max_px, "png")
    except SlideError as error:
        raise CommandError(f"{path.name}: {error.detail}", ExitCode.FAILED) from error
    bgr = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None, "our reader's PNG"
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _within(picture: NDArray[np.uint8], max_px: int) -> NDArray[np.uint8]:
    scale = max(picture.shape[:2]) / max_px
    if scale <= 1:
        return picture
    size = (max(1, round(picture.shape[1] / scale)), max(1, round(picture.shape[0] / scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
