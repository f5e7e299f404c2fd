"""Draws H&E-like tissue: seeded, without labels, good enough to show and to tile. All geometry is in µm.

Two dyes are drawn as optical density, haematoxylin (nuclei) and eosin (everything else), and light passes through
both: RGB = glass · exp(-(H · h + E · e)). What varies over the slide comes from smooth fields, what varies within
a tile from textures that repeat every `PERIOD_PX` pixels.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.synthetic.write_pyramid import TILE_PX

Plane = NDArray[np.float32]

PERIOD_PX = 1_024
# One pixel of the fields covers so many slide pixels; their features are hundreds of µm.
FIELD_PX = 32
# Field pixels beyond each edge of the slide, so that cubic interpolation never asks for a pixel outside the field.
FIELD_MARGIN = 2
# Optical density per unit of dye in R, G, B: blue-purple and pink.
HAEMATOXYLIN = np.array([0.65, 0.70, 0.29], dtype=np.float32)
EOSIN = np.array([0.10, 0.88, 0.34], dtype=np.float32)
GLASS = np.array([243.0, 242.0, 244.0], dtype=np.float32)
# Grey levels; without it blank tiles compress to unrealistically few bytes.
SCANNER_NOISE = 1.2


@dataclass(frozen=True)
class Nuclei:
    """One kind of nucleus: radii and mean distance in µm, long over short axis, share of the places taken."""

    radius_um: float
    distance_um: float
    elongation: float
    share: float
    density: float


TUMOUR = Nuclei(radius_um=4.6, distance_um=12.0, elongation=1.25, share=0.95, density=1.0)
STROMA = Nuclei(radius_um=3.4, distance_um=17.0, elongation=3.0, share=0.45, density=0.9)
LYMPHOCYTES = Nuclei(radius_um=2.9, distance_um=7.5, elongation=1.1, share=0.85, density=1.5)


class TissueSlide:
    """Draws any tile of one slide; the same seed and size give the same pixels in any order."""

    def __init__(self, *, seed: int, width_px: int, height_px: int, mpp: float) -> None:
        rng = np.random.default_rng(seed)
        self._seed = seed
        # One tile beyond the slide, which the last column and row of tiles may reach.
        shape = tuple((side + TILE_PX) // FIELD_PX + 2 * FIELD_MARGIN for side in (height_px, width_px))
        field_um = FIELD_PX * mpp
        self._tissue = _outline(rng, shape) + 0.35 * _smooth_field(rng, shape, 160 / field_um)
        self._nests = _smooth_field(rng, shape, 90 / field_um)
        self._lymph = _smooth_field(rng, shape, 130 / field_um)
        self._gaps = _smooth_field(rng, shape, 45 / field_um)
        self._kinds = [_nuclei_texture(rng, kind, mpp) for kind in (TUMOUR, STROMA, LYMPHOCYTES)]
        self._fibres = _fibre_texture(rng, mpp)
        self._grain = _noise_texture(rng, 1.5 / mpp)
        self._stain = rng.uniform(0.85, 1.15, size=2).astype(np.float32)

    def draw_tile(self, x: int, y: int) -> NDArray[np.uint8]:
        """RGB uint8 [256, 256, 3] of the level-0 pixels from (x, y)."""
        tissue = self._at(self._tissue, x, y, 0.0, 90.0) * self._at(-self._gaps, x, y, -1.6, 30.0)
        nests = self._at(self._nests, x, y, 0.25, 18.0)
        lymph = self._at(self._lymph, x, y, 1.1, 5.0) * (1 - nests)
        tumour, stroma, lymphocytes = (_crop(kind, x, y) for kind in self._kinds)
        grain, fibres = _crop(self._grain, x, y), _crop(self._fibres, x, y)
        nuclei = nests * tumour + lymph * lymphocytes + (1 - nests) * (1 - lymph) * stroma
        haematoxylin = nuclei * (0.85 + 0.25 * grain) + 0.16 * nests + 0.10 * lymph
        eosin = 0.34 * nests + (1 - nests) * (0.42 + 0.24 * fibres) * (1 - 0.4 * lymph) + 0.05 * grain
        return self._shine_through(tissue * haematoxylin, tissue * np.maximum(eosin, 0.0), x, y)

    def _at(self, field: Plane, x: int, y: int, threshold: float, sharpness: float) -> Plane:
        """A field over one tile as a soft mask, 0 below and 1 above the threshold."""
        scale = 1 / FIELD_PX
        matrix = np.array([[scale, 0, x * scale + FIELD_MARGIN], [0, scale, y * scale + FIELD_MARGIN]])
        value = cv2.warpAffine(
            field,
            matrix,
            (TILE_PX, TILE_PX),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(np.clip(0.5 + sharpness / 4 * (value - threshold), 0, 1), dtype=np.float32)

    def _shine_through(self, haematoxylin: Plane, eosin: Plane, x: int, y: int) -> NDArray[np.uint8]:
        h, e = haematoxylin * self._stain[0], eosin * self._stain[1]
        density = h[..., None] * HAEMATOXYLIN + e[..., None] * EOSIN
        noise = np.random.default_rng([self._seed, x, y]).normal(0, SCANNER_NOISE, density.shape)
        return np.asarray(np.clip(GLASS * np.exp(-density) + noise, 0, 255).round(), dtype=np.uint8)


def _outline(rng: np.random.Generator, shape: tuple[int, ...]) -> Plane:
    """Positive inside two or three overlapping pieces of tissue, negative towards the slide's edge."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    v, u = rows / (shape[0] - 1), columns / (shape[1] - 1)
    pieces = np.full(shape, -2.0, dtype=np.float32)
    for _ in range(rng.integers(2, 4)):
        centre_u, centre_v = rng.uniform(0.3, 0.7, size=2)
        radius_u, radius_v = rng.uniform(0.20, 0.30, size=2)
        distance = np.hypot((u - centre_u) / radius_u, (v - centre_v) / radius_v)
        pieces = np.maximum(pieces, 1.0 - distance)
    to_edge = np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v))
    return np.asarray(pieces - 12 * np.maximum(0.0, 0.15 - to_edge), dtype=np.float32)


def _smooth_field(rng: np.random.Generator, shape: tuple[int, ...], size: float) -> Plane:
    """Noise of mean 0 and deviation 1 whose features are about `size` field pixels wide."""
    noise = cv2.GaussianBlur(rng.standard_normal(shape, dtype=np.float32), (0, 0), max(0.8, size / 2))
    return np.asarray((noise - noise.mean()) / max(1e-6, noise.std()), dtype=np.float32)


def _noise_texture(rng: np.random.Generator, size_px: float) -> Plane:
    return _wrapped_noise(rng, size_px, size_px)


def _fibre_texture(rng: np.random.Generator, mpp: float) -> Plane:
    """Wavy collagen: noise smeared along x, bent by a slow field, in -1 … 1."""
    smeared = _wrapped_noise(rng, 18 / mpp, 1.2 / mpp)
    bend = _wrapped_noise(rng, 25 / mpp, 25 / mpp) * (12 / mpp)
    rows, columns = np.mgrid[0:PERIOD_PX, 0:PERIOD_PX].astype(np.float32)
    wavy = cv2.remap(smeared, columns, rows + bend, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return np.asarray(np.clip(wavy / 2, -1, 1), dtype=np.float32)


def _wrapped_noise(rng: np.random.Generator, size_x: float, size_y: float) -> Plane:
    """Noise of deviation 1 that repeats without a seam, blurred by a Gaussian of these sigmas in pixels."""
    spectrum = np.fft.rfft2(rng.standard_normal((PERIOD_PX, PERIOD_PX)))
    along_y, along_x = np.fft.fftfreq(PERIOD_PX)[:, np.newaxis], np.fft.rfftfreq(PERIOD_PX)
    spectrum *= np.exp(-2 * np.pi**2 * ((size_x * along_x) ** 2 + (size_y * along_y) ** 2))
    plane = np.fft.irfft2(spectrum, (PERIOD_PX, PERIOD_PX))
    return np.asarray(plane / plane.std(), dtype=np.float32)


def _nuclei_texture(rng: np.random.Generator, kind: Nuclei, mpp: float) -> Plane:
    """Haematoxylin of one kind of nucleus, repeating without a seam: a darker rim around a mottled inside."""
    cells = max(2, round(PERIOD_PX * mpp / kind.distance_um))
    plane = np.zeros((PERIOD_PX, PERIOD_PX), dtype=np.uint8)
    for row, column in np.ndindex(cells, cells):
        if rng.random() < kind.share:
            place = (np.array([column, row]) + rng.uniform(0.1, 0.9, size=2)) * PERIOD_PX / cells
            _draw_nucleus(plane, place, kind, mpp, rng)
    soft = cv2.GaussianBlur(plane.astype(np.float32) / 255, (0, 0), 0.35 / mpp)
    return np.asarray(soft * kind.density, dtype=np.float32)


def _draw_nucleus(
    plane: NDArray[np.uint8], place: NDArray[np.float64], kind: Nuclei, mpp: float, rng: np.random.Generator
) -> None:
    radius = kind.radius_um / mpp * np.clip(rng.normal(1, 0.15), 0.7, 1.35)
    axes = (radius * np.sqrt(kind.elongation), radius / np.sqrt(kind.elongation))
    angle = rng.uniform(0, 180) if kind.elongation < 2 else rng.normal(0, 25)
    inside = rng.uniform(0.55, 0.8)
    for shift_x in (-PERIOD_PX, 0, PERIOD_PX):
        for shift_y in (-PERIOD_PX, 0, PERIOD_PX):
            x, y = place[0] + shift_x, place[1] + shift_y
            if -radius * 3 < x < PERIOD_PX + radius * 3 and -radius * 3 < y < PERIOD_PX + radius * 3:
                _ellipse(plane, (x, y), axes, angle, 230)
                _ellipse(plane, (x, y), (axes[0] * 0.8, axes[1] * 0.8), angle, int(230 * inside))


def _ellipse(
    plane: NDArray[np.uint8], centre: tuple[float, float], axes: tuple[float, float], angle: float, value: int
) -> None:
    fine = 16  # sub-pixel steps of OpenCV's fixed-point coordinates (shift = 4)
    cv2.ellipse(
        plane,
        (round(centre[0] * fine), round(centre[1] * fine)),
        (max(1, round(axes[0] * fine)), max(1, round(axes[1] * fine))),
        angle,
        0,
        360,
        value,
        -1,
        cv2.LINE_AA,
        4,
    )


def _crop(texture: Plane, x: int, y: int) -> Plane:
    """One tile of a repeating texture; tiles divide the period, so none crosses its edge."""
    top, left = y % PERIOD_PX, x % PERIOD_PX
    return texture[top : top + TILE_PX, left : left + TILE_PX]
