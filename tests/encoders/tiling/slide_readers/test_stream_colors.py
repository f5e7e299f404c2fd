"""Slides whose tiles are of other colours than their container says are read right or refused: truth is the drawing."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import hostile_jpeg
import imagecodecs
import numpy as np
import pytest
import tiff_draft
from dicom_slide import DicomLevel, write_dicom
from hostile_jpeg import adobe, encode, renumbered, with_segments
from numpy.typing import NDArray

from encoders.errors import UnreadableSlide
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.slide_readers.choose_reader import open_reader
from encoders.tiling.slide_readers.color_conflict import ColorConflict
from encoders.tiling.slide_readers.jpeg_segments import MalformedJpeg
from encoders.tiling.slide_readers.open_slide import OpenSlideReader
from encoders.tiling.slide_readers.stream_colors import StreamColor, j2k_color, jpeg_color
from encoders.tiling.slide_readers.tiff_channels import UnusableChannels

LIMITS = ReaderLimits()
TILE_PX, COLUMNS, ROWS = 128, 5, 4
JFIF = 0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"
MPP = "Aperio drawn\r\n|AppMag = 20|MPP = 0.5"
Encode = Callable[[NDArray[np.uint8]], bytes]


def ycbcr(tile: NDArray[np.uint8], subsampling: str = "444") -> bytes:
    return encode(tile, quality=95, subsampling=subsampling)


def rgb(tile: NDArray[np.uint8]) -> bytes:
    """As Aperio has it: it declares nothing."""
    return encode(tile, quality=95, is_rgb=True)


# Streams that say what they are.
YCBCR: dict[str, Encode] = {
    "tables": ycbcr,
    "4:2:0": lambda tile: renumbered(ycbcr(tile, "420"), b"\0\1\2"),
    "4:2:2": lambda tile: renumbered(ycbcr(tile, "422"), b"\0\1\2"),
    "JFIF": lambda tile: renumbered(with_segments(ycbcr(tile), JFIF), b"\0\1\2"),
    "Adobe": lambda tile: renumbered(with_segments(ycbcr(tile), adobe(1)), b"\0\1\2"),
}
RGB: dict[str, Encode] = {
    "letters": lambda tile: renumbered(rgb(tile), b"RGB"),
    "Adobe": lambda tile: with_segments(rgb(tile), adobe(0)),
}
SAYING: dict[str, tuple[Encode, StreamColor]] = {
    **{f"YCbCr, {name}": (make, "ycbcr") for name, make in YCBCR.items()},
    **{f"RGB, {name}": (make, "rgb") for name, make in RGB.items()},
    "Aperio's RGB": (rgb, None),
    "RGB numbered as JFIF has it": (lambda tile: renumbered(rgb(tile), b"\1\2\3"), None),
    "JFIF and RGB": (lambda tile: with_segments(rgb(tile), JFIF, adobe(0)), "unclear"),
    "JFIF and letters": (lambda tile: renumbered(with_segments(rgb(tile), JFIF), b"RGB"), "unclear"),
    "subsampled RGB": (lambda tile: with_segments(ycbcr(tile, "420"), adobe(0)), "unclear"),
    "an unknown transform": (lambda tile: with_segments(rgb(tile), adobe(2)), "unclear"),
    "JFIF and YCbCr": (lambda tile: with_segments(ycbcr(tile), JFIF, adobe(1)), "ycbcr"),
    "grey": (hostile_jpeg.encode_grey, None),
}


def draw() -> NDArray[np.uint8]:
    """Stained tissue on glass, smooth enough for chroma of half the size."""
    height, width = ROWS * TILE_PX, COLUMNS * TILE_PX
    noise = np.random.default_rng(5).uniform(-1, 1, (height // 32, width // 32)).astype(np.float32)
    field = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)[..., np.newaxis]
    tissue = np.array([190, 110, 170]) + field * np.array([30, 45, 25])
    picture = np.where(field > -0.2, tissue, np.array([241, 240, 242]))
    return np.asarray(cv2.GaussianBlur(np.clip(picture, 0, 255).astype(np.uint8), (0, 0), 3), dtype=np.uint8)


def tiles_of(picture: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    corners = [(y, x) for y in range(0, len(picture), TILE_PX) for x in range(0, picture.shape[1], TILE_PX)]
    return [np.ascontiguousarray(picture[y : y + TILE_PX, x : x + TILE_PX]) for y, x in corners]


def write_tiff(path: Path, tiles: list[bytes], photometric: int, compression: int = tiff_draft.JPEG) -> Path:
    level = tiff_draft.Directory(
        COLUMNS * TILE_PX, ROWS * TILE_PX, TILE_PX, tiles, photometric, compression, description=MPP
    )
    path.write_bytes(tiff_draft.write_tiff([level]))
    return path


def mixed(usual: Encode, other: Encode, step: int) -> list[bytes]:
    return [(usual if index % step else other)(tile) for index, tile in enumerate(tiles_of(draw()))]


def difference(path: Path) -> float:
    reader = open_reader(path, LIMITS).reader
    picture = draw()
    seen = reader.read_region(0, 0, 0, picture.shape[1], picture.shape[0])
    tiles = zip(tiles_of(seen), tiles_of(picture), strict=True)
    return max(float(np.abs(one.astype(np.int16) - other).mean()) for one, other in tiles)


@pytest.mark.parametrize("name", SAYING)
def test_what_a_stream_says(name: str) -> None:
    make, color = SAYING[name]

    assert jpeg_color(make(tiles_of(draw())[0])) == color


@pytest.mark.parametrize("stream", [b"\xff\xd8", b"\xff\xd8\xff\xe0\0\x10JFIF", b"\xff\xd8\xff\xda", b""])
def test_a_cut_head_says_nothing(stream: bytes) -> None:
    with pytest.raises(MalformedJpeg):
        jpeg_color(stream)


@pytest.mark.parametrize("step", [1, 2, 7])
@pytest.mark.parametrize("name", YCBCR)
def test_ycbcr_tiles_of_a_slide_that_says_rgb_are_read_as_what_they_are(tmp_path: Path, name: str, step: int) -> None:
    path = write_tiff(tmp_path / "slide.svs", mixed(rgb, YCBCR[name], step), tiff_draft.RGB)

    assert difference(path) <= 2
    assert [it.code for it in open_reader(path, LIMITS).reader.facts.warnings] == ["colors_contradicted"]


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("name", RGB)
def test_rgb_tiles_of_a_slide_that_says_ycbcr_are_read_as_what_they_are(tmp_path: Path, name: str, step: int) -> None:
    path = write_tiff(tmp_path / "slide.svs", mixed(ycbcr, RGB[name], step), tiff_draft.YCBCR)

    assert difference(path) <= 2
    assert [it.code for it in open_reader(path, LIMITS).reader.facts.warnings] == ["colors_contradicted"]


@pytest.mark.parametrize(
    ("usual", "photometric"),
    [(rgb, tiff_draft.RGB), (SAYING["RGB numbered as JFIF has it"][0], tiff_draft.RGB), (ycbcr, tiff_draft.YCBCR)]
    + [(make, tiff_draft.YCBCR) for make in YCBCR.values()]
    + [(make, tiff_draft.RGB) for make in RGB.values()],
)
def test_a_sound_slide_is_openslides_to_the_last_pixel(tmp_path: Path, usual: Encode, photometric: int) -> None:
    path = write_tiff(tmp_path / "slide.svs", mixed(usual, usual, 1), photometric)
    chosen = open_reader(path, LIMITS)

    assert (chosen.kind, chosen.reader.facts.warnings) == ("fast_tiff", ())
    seen = chosen.reader.read_region(0, 0, 0, 600, 500)
    assert np.array_equal(seen, OpenSlideReader(path, LIMITS).read_region(0, 0, 0, 600, 500))


@pytest.mark.parametrize("name", [name for name, (_, color) in SAYING.items() if color == "unclear"])
@pytest.mark.parametrize("photometric", [tiff_draft.RGB, tiff_draft.YCBCR])
def test_a_tile_that_contradicts_itself_is_refused(tmp_path: Path, name: str, photometric: int) -> None:
    usual = rgb if photometric == tiff_draft.RGB else ycbcr
    path = write_tiff(tmp_path / "slide.svs", mixed(usual, SAYING[name][0], 6), photometric)

    with pytest.raises(ColorConflict, match="another colour space"):
        difference(path)


def test_what_openslide_would_read_by_the_directory_is_refused(tmp_path: Path) -> None:
    """A tile is missing, so the fast reader does not take the slide."""
    tiles = mixed(rgb, YCBCR["JFIF"], 7)
    path = write_tiff(tmp_path / "slide.svs", [*tiles[:-1], b""], tiff_draft.RGB)

    with pytest.raises(ColorConflict):
        open_reader(path, LIMITS)
    sound = write_tiff(tmp_path / "sound.svs", [*mixed(rgb, rgb, 1)[:-1], b""], tiff_draft.RGB)
    assert open_reader(sound, LIMITS).reason == "missing_tiles"


def j2k(tile: NDArray[np.uint8], *, transformed: bool) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(tile, codecformat="j2k", mct=transformed, level=0))


def test_a_component_transform_is_of_rgb() -> None:
    tile = tiles_of(draw())[0]

    assert j2k_color(j2k(tile, transformed=True)) == "rgb"
    assert j2k_color(j2k(tile, transformed=False)) is None
    with pytest.raises(MalformedJpeg):
        j2k_color(j2k(tile, transformed=True)[:60])


@pytest.mark.parametrize(
    ("compression", "transformed", "is_right"), [(33005, True, True), (33005, False, True), (33003, True, False)]
)
def test_jpeg_2000_of_aperio(tmp_path: Path, compression: int, transformed: bool, is_right: bool) -> None:
    tiles = [j2k(tile, transformed=transformed) for tile in tiles_of(draw())]
    path = write_tiff(tmp_path / "slide.svs", tiles, tiff_draft.RGB, compression)

    if is_right:
        assert difference(path) <= 2
    else:
        with pytest.raises(ColorConflict):
            open_reader(path, LIMITS)


@dataclass(frozen=True)
class Instance:
    usual: Encode
    other: Encode
    photometric: str
    is_right: bool


INSTANCES = {
    "sound YCbCr": Instance(YCBCR["JFIF"], YCBCR["4:2:2"], "YBR_FULL_422", True),
    "sound RGB": Instance(rgb, RGB["Adobe"], "RGB", True),
    "all YCbCr, called RGB": Instance(YCBCR["4:2:0"], YCBCR["4:2:0"], "RGB", False),
    "some YCbCr, called RGB": Instance(rgb, YCBCR["JFIF"], "RGB", False),
    "some RGB, called YCbCr": Instance(ycbcr, RGB["Adobe"], "YBR_FULL_422", False),
}


@pytest.mark.parametrize("name", INSTANCES)
@pytest.mark.parametrize("wrong_level", [0, 1])
def test_frames_of_dicom(tmp_path: Path, name: str, wrong_level: int) -> None:
    instance = INSTANCES[name]
    small = cv2.resize(draw(), (COLUMNS * TILE_PX // 2, ROWS * TILE_PX // 2), interpolation=cv2.INTER_AREA)
    padded = np.pad(small, ((0, -len(small) % TILE_PX), (0, -small.shape[1] % TILE_PX), (0, 0)), constant_values=255)
    frames = []
    for index, picture in enumerate([draw(), padded]):
        other = instance.other if index == wrong_level else instance.usual
        frames.append([(instance.usual if at % 5 else other)(tile) for at, tile in enumerate(tiles_of(picture))])
    levels = [DicomLevel(COLUMNS * TILE_PX, ROWS * TILE_PX, 0.5, frames[0]), DicomLevel(320, 256, 1.0, frames[1])]
    path = write_dicom(tmp_path / "slide", levels, TILE_PX, 20, instance.photometric)

    if instance.is_right:
        assert difference(path) <= 2
    else:
        with pytest.raises(ColorConflict):
            open_reader(path, LIMITS)


def grey_pages(path: Path, count: int, says: dict[int, tiff_draft.Field]) -> Path:
    tiles = [np.ascontiguousarray(tile[..., 0]).tobytes() for tile in tiles_of(draw())]
    one = {
        tiff_draft.BITS: tiff_draft.Field(tiff_draft.SHORT, [8]),
        tiff_draft.SAMPLES: tiff_draft.Field(tiff_draft.SHORT, [1]),
        tiff_draft.PHOTOMETRIC: tiff_draft.Field(tiff_draft.SHORT, [1]),
        282: tiff_draft.Field(tiff_draft.RATIONAL, [20_000, 1]),
        283: tiff_draft.Field(tiff_draft.RATIONAL, [20_000, 1]),
        296: tiff_draft.Field(tiff_draft.SHORT, [3]),
    }
    page = tiff_draft.Directory(COLUMNS * TILE_PX, ROWS * TILE_PX, TILE_PX, tiles, 1, 1, says=one | says)
    path.write_bytes(tiff_draft.write_tiff([page] * count))
    return path


@pytest.mark.parametrize(
    ("count", "says", "reason"),
    [
        (3, {}, "3 grey pages"),
        (4, {}, "4 grey pages"),
        (1, {}, "monochrome"),
        (1, {tiff_draft.PHOTOMETRIC: tiff_draft.Field(tiff_draft.SHORT, [0])}, "monochrome"),
    ],
)
def test_what_is_no_colour_picture_is_refused(
    tmp_path: Path, count: int, says: dict[int, tiff_draft.Field], reason: str
) -> None:
    path = grey_pages(tmp_path / "slide.tif", count, says)

    with pytest.raises(UnusableChannels, match=reason) as caught:
        open_reader(path, LIMITS)
    assert isinstance(caught.value, UnreadableSlide)


def test_the_resolution_is_asked_for_first(tmp_path: Path) -> None:
    """Nothing is gained by giving it, but only then would anything have been read."""
    path = grey_pages(tmp_path / "slide.tif", 1, {296: tiff_draft.Field(tiff_draft.SHORT, [1])})
    reader = open_reader(path, LIMITS).reader

    assert reader.facts.mpp is None
    with pytest.raises(UnusableChannels):
        reader.read_region(0, 0, 0, 10, 10)


def test_a_long_head_is_read_whole(tmp_path: Path) -> None:
    """A colour profile before the frame, in every tile of a slide that OpenSlide reads."""
    profile = 0xE2, struct.pack(">3000x")
    tiles = mixed(rgb, lambda tile: with_segments(ycbcr(tile), JFIF, profile), 7)
    path = write_tiff(tmp_path / "slide.svs", [*tiles[:-1], b""], tiff_draft.RGB)

    with pytest.raises(ColorConflict):
        open_reader(path, LIMITS)
