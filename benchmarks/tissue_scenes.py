"""Overviews of drawn slides at 8 µm/px with their true tissue, as they are and as the field has them."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from synthetic.synthetic_slide import SyntheticSlide

# Slides without a pen mark, of several stains and outlines.
SEEDS = (5, 6, 8, 11, 40)
_SIZE, _REDUCED = (2_304, 1_920), 8
_JPEG_QUALITY = 85


@dataclass(frozen=True)
class Scene:
    """RGB uint8 [h, w, 3] and its tissue, bool [h, w]."""

    rgb: NDArray[np.uint8]
    tissue: NDArray[np.bool_]


Change = Callable[[Scene], Scene]


def draw_scene(seed: int) -> Scene:
    """The slide as it was drawn."""
    slide = SyntheticSlide(seed=seed, width_px=_SIZE[0], height_px=_SIZE[1], mpp=1.0)
    size = _SIZE[0] // _REDUCED, _SIZE[1] // _REDUCED
    rgb = cv2.resize(slide.draw(0, 0, *_SIZE), size, interpolation=cv2.INTER_AREA)
    tissue = cv2.resize(slide.layout.tissue_mask().astype(np.uint8), size, interpolation=cv2.INTER_AREA) > 0
    return Scene(np.asarray(rgb, dtype=np.uint8), np.asarray(tissue, dtype=np.bool_))


def with_chromogen(share: float, colour: tuple[int, int, int], contrast: float) -> Change:
    """Pale tissue, with `contrast` of its difference from glass, and `share` of it in a dark colour."""

    def change(scene: Scene) -> Scene:
        picture = scene.rgb.astype(np.float64)
        glass = np.median(picture[~scene.tissue], axis=0)
        pale = glass + (picture - glass) * contrast
        half = int(np.sqrt(share * scene.tissue.sum()) / 2)
        inside = cv2.distanceTransform(scene.tissue.astype(np.uint8), cv2.DIST_L2, 5)
        y, x = np.unravel_index(int(inside.argmax()), inside.shape)
        dark = np.zeros(scene.tissue.shape, dtype=np.bool_)
        dark[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1] = True
        dark &= scene.tissue
        pale[dark] = np.array(colour) + (picture[dark] - picture[dark].mean(axis=0)) * 0.15
        return Scene(_compressed(pale), scene.tissue)

    return change


def blacked(gap_px: int, black: int) -> Change:
    """The background set to a black up to so many pixels from the tissue."""

    def change(scene: Scene) -> Scene:
        kept = cv2.dilate(scene.tissue.astype(np.uint8), np.ones((2 * gap_px + 1,) * 2, np.uint8)) > 0
        picture = scene.rgb.astype(np.float64)
        picture[~kept] = black
        return Scene(_compressed(picture), scene.tissue)

    return change


def filled_around(share: float, grey: int) -> Change:
    """A canvas of which `share` was never scanned and has one colour."""

    def change(scene: Scene) -> Scene:
        height, width = scene.tissue.shape
        grown = (1 / (1 - share)) ** 0.5
        shape = int(height * grown), int(width * grown)
        top, left = (shape[0] - height) // 2, (shape[1] - width) // 2
        rgb, tissue = np.full((*shape, 3), grey, dtype=np.uint8), np.zeros(shape, dtype=np.bool_)
        rgb[top : top + height, left : left + width] = scene.rgb
        tissue[top : top + height, left : left + width] = scene.tissue
        return Scene(rgb, tissue)

    return change


def beyond_a_coverslip(darker_by: int) -> Change:
    """A third of the slide darker, behind a dark line."""

    def change(scene: Scene) -> Scene:
        picture = scene.rgb.astype(np.float64)
        edge = picture.shape[1] // 3
        picture[:, :edge] -= darker_by
        picture[:, edge - 1 : edge + 1] *= 0.5
        return Scene(_compressed(picture), scene.tissue)

    return change


def half_yellow(scene: Scene) -> Scene:
    """Old mounting medium under one half."""
    picture = scene.rgb.astype(np.float64)
    picture[:, picture.shape[1] // 2 :] *= np.array([1, 0.97, 0.84])
    return Scene(_compressed(picture), scene.tissue)


SCENES: dict[str, Change] = {
    "as drawn": lambda scene: scene,
    "brown, 3 %, beside pale": with_chromogen(0.03, (71, 40, 20), 0.35),
    "brown, 10 %, beside paler": with_chromogen(0.1, (110, 60, 30), 0.25),
    "nearly black, 30 %": with_chromogen(0.3, (40, 25, 15), 0.5),
    "red chromogen, 10 %": with_chromogen(0.1, (140, 30, 50), 0.35),
    "blacked up to the tissue": blacked(0, 0),
    "blacked, 2 px away": blacked(2, 0),
    "nearly black, 5 px away": blacked(5, 20),
    "half filled with white": filled_around(0.5, 255),
    "95 % filled with 224": filled_around(0.95, 224),
    "90 % filled with 128": filled_around(0.9, 128),
    "90 % filled with black": filled_around(0.9, 0),
    "coverslip, 20 darker": beyond_a_coverslip(20),
    "coverslip, 35 darker": beyond_a_coverslip(35),
    "half of the glass yellow": half_yellow,
}


def overlap(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Intersection over union."""
    return float((found & truth).sum() / max(1, (found | truth).sum()))


def _compressed(picture: NDArray[np.float64]) -> NDArray[np.uint8]:
    rgb = picture.clip(0, 255).round().astype(np.uint8)
    _, stream = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    decoded = cv2.imdecode(stream, cv2.IMREAD_COLOR)
    assert decoded is not None, "it was compressed a line above"
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)
