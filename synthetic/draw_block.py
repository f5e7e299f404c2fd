"""Pixels of one block: two planes of dye from its sketch, nuclei put on them, then stain and scanner."""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from synthetic.artefacts import INKS
from synthetic.draw_sketch import Drawing, draw_sketch
from synthetic.mitosis_sprites import COUNT, mitosis_sprites
from synthetic.sketch import Material, Nuclei, Plane, Sketch
from synthetic.slide_layout import SlideLayout
from synthetic.slide_truth import SlideTruth
from synthetic.stain import Rgb, Stain, StainTables
from synthetic.textures import Texture, runs_upright, texture_offset_um, textures_at
from synthetic.world_noise import Box, Points

# Sketched beyond each edge of a block: the whole square of a dividing cell that reaches in (42 + 9), and what bends and
# erosions ask for around it.
_MARGIN_UM = 68
# Drawn beyond each edge of a block, so that nuclei are whole and the scanner's blur sees its neighbours.
_BLUR_UM = 3.0
_NOISE_SIDE = 1024
_FOLD_FACTOR = 1.75
_LATTICE_UM = 0.5

_HAEMATOXYLIN = {
    Material.STROMA: 4,
    Material.EPITHELIUM: 16,
    Material.NECROSIS: 9,
    Material.WALL: 5,
    Material.SECRETION: 2,
}
_EOSIN = {
    Material.LUMEN: 2,
    Material.STROMA: 84,
    Material.EPITHELIUM: 56,
    Material.NECROSIS: 88,
    Material.KERATIN: 172,
    Material.PALE_KERATIN: 96,
    Material.WALL: 100,
    Material.BLOOD: 190,
    Material.SECRETION: 20,
}
# (haematoxylin, eosin) of epithelium by pattern, of stroma by kind.
_EPITHELIUM = {
    "glandular": (18, 60),
    "solid": (24, 50),
    "keratinising": (12, 84),
    "papillary": (18, 60),
    "lymphoid": (24, 30),
}
_LOOSE_STROMA = (17, 30)


class BlockPainter:
    """Paints blocks of one slide."""

    def __init__(self, truth: SlideTruth, layout: SlideLayout, stain: Stain, mpp: float) -> None:
        self._truth, self._layout, self._stain, self._mpp = truth, layout, stain, mpp
        self._tables = StainTables(stain)
        self._textures = textures_at(mpp, runs_upright(truth.seed))
        self._dyes = _dyes_of_materials(truth)
        self._noise = _noise(round(stain.noise * 20))
        self._offset_px = np.round(texture_offset_um(truth.seed) / mpp).astype(int)

    def paint(self, first: tuple[int, int], end: tuple[int, int]) -> Rgb:
        """RGB of the level-0 pixels from `first` (x, y) to before `end`."""
        width, height = end[0] - first[0], end[1] - first[1]
        box = Box(*(float(edge) * self._mpp for edge in (*first, *end)))
        picture = self._tables.blank(height, width) if self._layout.is_blank(box) else self._tissue(first, end, box)
        self._mark(picture, first)
        return _noisy(picture, self._noise, first)

    def _tissue(self, first: tuple[int, int], end: tuple[int, int], box: Box) -> Rgb:
        wide = box.grown(_MARGIN_UM)
        corners = np.floor([wide.left, wide.top]), np.ceil([wide.right, wide.bottom])
        drawing = draw_sketch(Box(*map(float, np.concatenate(corners))), self._truth, self._layout, self._mpp)
        pad = int(np.ceil(_BLUR_UM / self._mpp))
        origin = first[0] - pad, first[1] - pad
        size = end[0] - first[0] + 2 * pad, end[1] - first[1] + 2 * pad
        planes = self._dyed(drawing, origin, size)
        picture = self._tables.colour(*(self._scanned(plane) for plane in planes))
        return np.ascontiguousarray(picture[pad:-pad, pad:-pad])

    def _dyed(self, drawing: Drawing, origin: tuple[int, int], size: tuple[int, int]) -> tuple[Plane, Plane]:
        """Haematoxylin and eosin [height, width] from pixel `origin` (x, y)."""
        texture = self._texture(drawing.sketch, origin, size)
        planes = [self._enlarged(dye[drawing.sketch.materials], drawing.sketch, origin, size) for dye in self._dyes]
        haematoxylin, eosin = planes[0], np.asarray(cv2.multiply(planes[1], texture, scale=1 / 128), dtype=np.uint8)
        for nuclei in drawing.nuclei:
            _put_down(haematoxylin, nuclei, origin, self._mpp)
        _divide(haematoxylin, eosin, drawing, origin, self._mpp)
        return self._folded(haematoxylin, eosin, origin)

    def _texture(self, sketch: Sketch, origin: tuple[int, int], size: tuple[int, int]) -> Texture:
        """The texture of each place's material."""
        stroma = self._textures.collagen if self._truth.stroma == "fibrous" else self._textures.strands
        texture = self._cropped(self._textures.grain, origin, size).copy()
        for material, other in ((Material.STROMA, stroma), (Material.NECROSIS, self._textures.debris)):
            mask = np.where(sketch.materials == material, np.uint8(255), np.uint8(0))
            if mask.any():
                where = (self._enlarged(mask, sketch, origin, size) > 127).view(np.uint8)
                cv2.copyTo(self._cropped(other, origin, size), where, texture)
        return texture

    def _cropped(self, texture: Texture, origin: tuple[int, int], size: tuple[int, int]) -> Texture:
        return repeated(texture, (origin[0] + int(self._offset_px[0]), origin[1] + int(self._offset_px[1])), size)

    def _enlarged(self, plane: Plane, sketch: Sketch, origin: tuple[int, int], size: tuple[int, int]) -> Plane:
        """A plane of the sketch, softened, at the slide's resolution."""
        offset = [
            (origin[axis] + 0.5) * self._mpp - corner - 0.5
            for axis, corner in enumerate((sketch.box.left, sketch.box.top))
        ]
        matrix = np.array([[self._mpp, 0, offset[0]], [0, self._mpp, offset[1]]])
        soft = cv2.GaussianBlur(plane, (5, 5), 0.8)
        return np.asarray(
            cv2.warpAffine(soft, matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP), dtype=np.uint8
        )

    def _folded(self, haematoxylin: Plane, eosin: Plane, origin: tuple[int, int]) -> tuple[Plane, Plane]:
        """Both dyes, stronger where the tissue lies double."""
        if self._layout.fold is None:
            return haematoxylin, eosin
        mask = np.full(haematoxylin.shape, 100, dtype=np.uint8)
        start = origin[0] * self._mpp, origin[1] * self._mpp
        self._layout.fold.paint(mask, start, self._mpp, round(100 * _FOLD_FACTOR))
        soft = cv2.blur(mask, (round(4 / self._mpp) | 1,) * 2)
        haematoxylin, eosin = (
            np.asarray(cv2.multiply(plane, soft, scale=0.01), dtype=np.uint8) for plane in (haematoxylin, eosin)
        )
        return haematoxylin, eosin

    def _scanned(self, plane: Plane) -> Plane:
        sigma = self._stain.blur_um / self._mpp
        return plane if sigma < 0.25 else np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma), dtype=np.uint8)

    def _mark(self, picture: Rgb, first: tuple[int, int]) -> None:
        """Lays the pen's ink over the picture."""
        if self._layout.pen is None:
            return
        mask = np.zeros(picture.shape[:2], dtype=np.uint8)
        self._layout.pen.paint(mask, (first[0] * self._mpp, first[1] * self._mpp), self._mpp, 255)
        if mask.any():
            inked = picture * np.array(INKS[self._layout.pen.ink], dtype=np.float32)
            np.copyto(picture, inked.astype(np.uint8), where=mask[..., np.newaxis] > 0)


def repeated(texture: NDArray[np.uint8], start: tuple[int, int], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A window of `size` (width, height) from `start` (x, y) of a texture that repeats for ever."""
    side = texture.shape[0]
    x, y = start[0] % side, start[1] % side
    if x + size[0] <= side and y + size[1] <= side:
        return texture[y : y + size[1], x : x + size[0]]
    rows = np.concatenate([texture[y : y + size[1]], *[texture[: max(0, y + size[1] - side)]]])
    return np.concatenate([rows[:, x : x + size[0]], rows[:, : max(0, x + size[0] - side)]], axis=1)


def _dyes_of_materials(truth: SlideTruth) -> tuple[Plane, Plane]:
    """Tables [256] from material to haematoxylin and to eosin."""
    haematoxylin, eosin = np.zeros(256, dtype=np.uint8), np.zeros(256, dtype=np.uint8)
    for table, amounts in ((haematoxylin, _HAEMATOXYLIN), (eosin, _EOSIN)):
        for material, amount in amounts.items():
            table[material] = amount
    epithelium = _EPITHELIUM.get(truth.pattern)
    if epithelium is not None:
        haematoxylin[Material.EPITHELIUM], eosin[Material.EPITHELIUM] = epithelium
    if truth.stroma == "loose":
        haematoxylin[Material.STROMA], eosin[Material.STROMA] = _LOOSE_STROMA
    return haematoxylin, eosin


def _put_down(plane: Plane, nuclei: Nuclei, origin: tuple[int, int], mpp: float) -> None:
    """Draws each sprite; those that reach over the plane's edge are cut there."""
    columns, rows = (
        np.floor(_snapped(nuclei.points[:, axis]) / mpp).astype(np.int64) - origin[axis] for axis in (0, 1)
    )
    height, width = plane.shape
    for number, column, row in zip(nuclei.numbers.tolist(), columns.tolist(), rows.tolist(), strict=True):
        sprite = nuclei.sprites[number]
        half = sprite.shape[0] // 2
        top, left = row - half, column - half
        if top >= 0 and left >= 0 and row + half < height and column + half < width:
            part = plane[top : row + half + 1, left : column + half + 1]
            np.maximum(part, sprite, out=part)
        else:
            _put_down_cut(plane, sprite, top, left)


def _snapped(place: Points) -> Points:
    """Places in µm on a lattice, so that rounding to pixels moves a nucleus as little as possible between µm/px."""
    return np.asarray((np.floor(place / _LATTICE_UM) + 0.5) * _LATTICE_UM, dtype=np.float32)


def _put_down_cut(plane: Plane, sprite: Plane, top: int, left: int) -> None:
    part = plane[max(0, top) : max(0, top + len(sprite)), max(0, left) : max(0, left + len(sprite))]
    y, x = max(0, -top), max(0, -left)
    np.maximum(part, sprite[y : y + part.shape[0], x : x + part.shape[1]], out=part)


def _divide(haematoxylin: Plane, eosin: Plane, drawing: Drawing, origin: tuple[int, int], mpp: float) -> None:
    """Clears each dividing cell and draws its plates."""
    sprites = mitosis_sprites(mpp)
    for point, phase in zip(drawing.mitoses, drawing.phases, strict=True):
        ceiling, plates = sprites[int(phase * COUNT) % COUNT]
        left, top = (int(np.floor(_snapped(point[axis]) / mpp)) - origin[axis] - len(plates) // 2 for axis in (0, 1))
        y, x = max(0, -top), max(0, -left)
        for plane, share in ((haematoxylin, 1.0), (eosin, 0.75)):
            part = plane[top + y : max(0, top + len(plates)), left + x : max(0, left + len(plates))]
            window = slice(y, y + part.shape[0]), slice(x, x + part.shape[1])
            np.minimum(part, ceiling[window], out=part)
            np.maximum(part, (plates[window] * share).astype(np.uint8), out=part)


@lru_cache(maxsize=4)
def _noise(strength: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """What a scanner adds and takes, uint8 [side, side, 3] each; strength in twentieths of a grey level."""
    rng = np.random.default_rng(8)
    noise = rng.standard_normal((_NOISE_SIDE, _NOISE_SIDE, 3), dtype=np.float32) * (strength / 20)
    whole = np.round(noise).astype(np.int16)
    return np.clip(whole, 0, 255).astype(np.uint8), np.clip(-whole, 0, 255).astype(np.uint8)


def _noisy(picture: Rgb, noise: tuple[NDArray[np.uint8], NDArray[np.uint8]], first: tuple[int, int]) -> Rgb:
    """The picture with noise that belongs to its place on the slide."""
    size = picture.shape[1], picture.shape[0]
    more, less = (repeated(part, first, size) for part in noise)
    return np.asarray(cv2.subtract(cv2.add(picture, more), less), dtype=np.uint8)
