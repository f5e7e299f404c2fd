"""Explains why an intact file cannot be used as a slide, and what to send instead. Runs in the reader process only.

OpenSlide says it in sentences with paths in them: they are matched, never passed on. What none of them names is damage.
"""

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from encoders.errors import SlideError, UnreadableSlide, UnsupportedFormat
from encoders.tiling.dicom_elements import IMAGE_TYPE, PHOTOMETRIC, TRANSFER_SYNTAX
from encoders.tiling.dicom_head import (
    BITS_ALLOCATED,
    BITS_STORED,
    FOCAL_PLANES,
    IS_SIGNED,
    OPTICAL_PATHS,
    PLANAR,
    SAMPLES,
    SOP_CLASS,
    WHOLE_SLIDE,
    dicom_head,
    level_heads,
)
from encoders.tiling.foreign_files import foreign_file

_SOP_CLASSES = {
    "1.2.840.10008.1.3.10": "a DICOMDIR, the table of contents of a disc",
    "1.2.840.10008.5.1.4.1.1.1": "a radiograph",
    "1.2.840.10008.5.1.4.1.1.2": "a CT image",
    "1.2.840.10008.5.1.4.1.1.4": "an MR image",
    "1.2.840.10008.5.1.4.1.1.6.1": "an ultrasound image",
    "1.2.840.10008.5.1.4.1.1.7": "a secondary capture",
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.77.1.2": "a microscope's single image",
    "1.2.840.10008.5.1.4.1.1.77.1.3": "a microscope's single image",
    "1.2.840.10008.5.1.4.1.1.77.1.4": "a photograph",
    "1.2.840.10008.5.1.4.1.1.104.1": "a PDF document",
}
_SYNTAXES = {
    "1.2.840.10008.1.2": "implicit value representations",
    "1.2.840.10008.1.2.2": "big-endian numbers",
    "1.2.840.10008.1.2.1.99": "Deflate",
    "1.2.840.10008.1.2.4.51": "12-bit JPEG",
    "1.2.840.10008.1.2.4.57": "lossless JPEG",
    "1.2.840.10008.1.2.4.70": "lossless JPEG",
    "1.2.840.10008.1.2.4.80": "JPEG-LS",
    "1.2.840.10008.1.2.4.81": "JPEG-LS",
    "1.2.840.10008.1.2.4.110": "JPEG XL",
    "1.2.840.10008.1.2.4.111": "JPEG XL",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.4.201": "HTJ2K",
    "1.2.840.10008.1.2.4.202": "HTJ2K",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
    "1.2.840.10008.1.2.5": "RLE",
}
# By compression, what OpenSlide reads of DICOM's PhotometricInterpretation.
_COLORS_READ = {
    "1.2.840.10008.1.2.1": {"RGB"},
    "1.2.840.10008.1.2.4.50": {"RGB", "YBR_FULL_422"},
    "1.2.840.10008.1.2.4.90": {"RGB", "YBR_RCT"},
    "1.2.840.10008.1.2.4.91": {"RGB", "YBR_RCT", "YBR_ICT"},
}
_COLORS_KNOWN = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_PARTIAL_422", "YBR_RCT", "YBR_ICT", "HSV"}
_COMPRESSIONS = {
    2: "CCITT",
    3: "CCITT fax",
    4: "CCITT fax",
    6: "old-style JPEG",
    22610: "JPEG XR",
    34887: "LERC",
    34892: "lossy DNG JPEG",
    34925: "LZMA",
    34933: "PNG",
    34934: "JPEG XR",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
# None, LZW, JPEG, Deflate, PackBits, and JPEG 2000 in Aperio's and others' numbers.
_COMPRESSIONS_READ = {1, 5, 7, 8, 32773, 32946, 33003, 33004, 33005, 34712}
_Z_STACK = (
    "The slide is a stack of several focal planes (z-stack), and only single planes are read. Export one focal plane "
    "as a slide of its own and send that."
)
SEVERAL_PATHS = (
    "The slide holds several optical paths, such as different light or stains of one glass, and they cannot be told "
    "apart here. Export each optical path as an instance of its own and send the one in bright field."
)
_SEVERAL = {FOCAL_PLANES: _Z_STACK, OPTICAL_PATHS: SEVERAL_PATHS}
_GREY = "The slide has a single grey channel, and slides are read in colour. Send a brightfield slide in RGB."
_ONLY_PICTURES = (
    "The files hold no level of a slide, only its label, overview or thumbnail. Send the slide's VOLUME images, all "
    "files of the series in one form."
)
_PALETTE = "The slide stores palette indices, not colours. Export it as an 8-bit RGB slide of a bright-field stain."
_PLANES = (
    "The slide stores each colour as a plane of its own (PlanarConfiguration 1), which is not read here. Export it "
    "again with JPEG or JPEG 2000 compression."
)
_SIGNED = (
    "The slide stores its pixels as signed numbers, and slides are read with 8 unsigned bits per channel. Export it "
    "again as 8-bit RGB, or send the scanner's original file."
)
_TWO_OF_A_SIZE = (
    "Two files of the slide hold levels of one size, as copies, focal planes and optical paths do. Send one of them, "
    "the files of one plane and path alone, and of levels that are padded to one size the finest."
)
_TWO_OF_A_KIND = (
    "Two files of the slide hold its label, its overview or its thumbnail. Send each of these once, or the VOLUME "
    "images alone."
)
_SEVERAL_SCANS = (
    "The slide holds several scans, at different magnifications or in different light. Export each scan as a slide of "
    "its own."
)
_NO_BRIGHT_FIELD = (
    "The slide holds no picture in bright field, only an overview or fluorescence. Send a scan of a bright-field stain."
)
_REPEATED = "Files of the slide came twice. Send each file of the series once, all in one form."
_INCOMPLETE = "Files of the slide are missing. Send all files of the series in one form."
_STRIPS = (
    "This TIFF is not stored in tiles, as slides are: it is a plain picture, or only a label or overview. Send the "
    "scanner's original file, or export a tiled, pyramidal TIFF."
)
_STRIPS_AND_TILES = (
    "The full-size picture of this TIFF is stored in strips, and only smaller ones in tiles. Export it again as a "
    "pyramidal TIFF in tiles throughout, or send the scanner's original file."
)
_NO_VENDOR = (
    "This is a TIFF that holds no slide in a layout that is known here. Send the scanner's original file, or export "
    "a tiled, pyramidal TIFF."
)
_BIG_ENDIAN = (
    "This TIFF stores its numbers in big-endian order, in which slides are not read here. Export it again in "
    "little-endian order, or send the scanner's original file."
)
_SAID: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"FocalPlanes value"), _Z_STACK),
    (re.compile(r"SamplesPerPixel value 1 !="), _GREY),
    (re.compile(r"MONOCHROME"), _GREY),
    (re.compile(r"unexpected associated image"), _TWO_OF_A_KIND),
    (re.compile(r"unexpected image"), _TWO_OF_A_SIZE),
    (re.compile(r"multiple SOP instances"), _REPEATED),
    (re.compile(r"dissimilar main images|Inconsistent main image"), _SEVERAL_SCANS),
    (re.compile(r"Can't find main image"), _NO_BRIGHT_FIELD),
    (
        re.compile(r"No pyramid levels found|Found no levels|No pyramid levels in slide|Couldn't find any pyramid"),
        _ONLY_PICTURES,
    ),
    (re.compile(r"SOP instance"), _INCOMPLETE),
)
_BITS_SAID = re.compile(r"images with (\d+)-bit|Bits(?:Allocated|Stored) value (\d+) !=")
_COMPRESSION_SAID = re.compile(r"(?:TIFF compression: |Compression )(\d+)")
_COMPRESSION_NAMED = re.compile(r"([A-Za-z0-9 /-]{2,20}) compression (?:is not supported|support is not configured)")
_BITS, _COMPRESSION, _SAMPLE_FORMAT, _TILE_WIDTH = 258, 259, 339, 322
_MAX_DIRECTORIES, _MAX_ENTRIES = 256, 1_024
_IS_SIGNED, _FLOAT = 2, 3


class _TiffImage(NamedTuple):
    """What the largest image of a TIFF is stored as, in TIFF's numbers; 0 where it does not say."""

    area: int
    bits: int
    compression: int
    sample_format: int
    is_tiled: bool
    is_big_endian: bool


def require_usable_samples(path: Path) -> None:
    """Raises UnsupportedFormat for a TIFF whose samples are no bytes: OpenSlide shows their upper half, or nothing."""
    image = _largest_image(path)
    if image is not None and image.is_tiled:
        _require_bytes(image)


def require_full_size_in_tiles(path: Path) -> None:
    """Raises UnsupportedFormat for a TIFF of levels whose largest picture is in strips, which OpenSlide leaves out."""
    images = _tiff_images(path)
    if images and not max(images).is_tiled:
        raise UnsupportedFormat(_STRIPS_AND_TILES)


def why_unsupported(path: Path) -> SlideError:
    """The error for a file that OpenSlide takes for no slide at all."""
    images = _tiff_images(path)
    if images:
        return _why_no_tiff(max(images), any(image.is_tiled for image in images))
    head = dicom_head(path)
    return UnsupportedFormat((_why_no_dicom(head) if head else None) or foreign_file(path))


def why_not_opened(path: Path, said: str) -> SlideError:
    """The error for a slide that OpenSlide cannot open, of which it said so."""
    # OpenSlide opens all levels, and names neither the file nor, often, what is unusual in it.
    heads = (dicom_head(path), *level_heads(path))
    sentence = next((reason for head in heads if head and (reason := _why_no_dicom(head))), None) or reason_said(said)
    if sentence is None and (image := _largest_image(path)) is not None:
        sentence = _unusual(image)
    if sentence is not None:
        return UnsupportedFormat(sentence)
    return unopenable()


def unopenable() -> UnreadableSlide:
    """For a slide that cannot be opened, whatever the reason is."""
    return UnreadableSlide(
        "The slide cannot be opened: it is damaged, or stored in a way that is not supported. Send an intact copy, or "
        "export it again with JPEG or JPEG 2000 compression."
    )


def reason_said(said: str) -> str | None:
    """Our sentence for OpenSlide's, when that is about an intact slide."""
    for pattern, sentence in _SAID:
        if pattern.search(said):
            return sentence
    if bits := _BITS_SAID.search(said):
        return _wrong_bits(int(next(group for group in bits.groups() if group)))
    if number := _COMPRESSION_SAID.search(said):
        return _wrong_compression(_COMPRESSIONS.get(int(number[1]), f"method {number[1][:6]} of TIFF"))
    if name := _COMPRESSION_NAMED.search(said):
        return _wrong_compression(name[1].strip())
    return None


def _why_no_dicom(head: Mapping[int, str | int]) -> str | None:
    kind = str(head.get(SOP_CLASS, WHOLE_SLIDE))
    if kind != WHOLE_SLIDE:
        what = _SOP_CLASSES.get(kind, "of another kind")
        return (
            f"This is a DICOM file, but no whole-slide image: it is {what}. Send the files of modality SM (VL Whole "
            "Slide Microscopy Image)."
        )
    several = next((reason for tag, reason in _SEVERAL.items() if int(head.get(tag, 1)) > 1), None)
    samples = head.get(SAMPLES, 3)
    bits = max(int(head.get(tag, 8)) for tag in (BITS_ALLOCATED, BITS_STORED))
    syntax = str(head.get(TRANSFER_SYNTAX, ""))
    colors = str(head.get(PHOTOMETRIC, "RGB"))
    if several:
        return several
    if colors == "PALETTE COLOR":
        return _PALETTE
    if samples == 1:
        return _GREY
    if bits != 8:
        return _wrong_bits(bits)
    if syntax in _SYNTAXES:
        return _wrong_compression(_SYNTAXES[syntax])
    if head.get(IS_SIGNED):
        return _SIGNED
    if head.get(PLANAR):
        return _PLANES
    if colors not in _COLORS_READ.get(syntax, {colors}):
        return _wrong_colors(colors)
    flavours = {"LABEL", "OVERVIEW", "THUMBNAIL"} & set(str(head.get(IMAGE_TYPE, "")).split("\\"))
    return _ONLY_PICTURES if flavours else None


def _why_no_tiff(image: _TiffImage, has_tiles: bool) -> SlideError:
    unknown = _BIG_ENDIAN if image.is_big_endian else _NO_VENDOR
    strips = _STRIPS_AND_TILES if has_tiles else _STRIPS
    return UnsupportedFormat(_unusual(image) or (unknown if image.is_tiled else strips))


def _unusual(image: _TiffImage) -> str | None:
    try:
        _require_bytes(image)
    except UnsupportedFormat as error:
        return error.detail
    if image.compression and image.compression not in _COMPRESSIONS_READ:
        return _wrong_compression(_COMPRESSIONS.get(image.compression, f"method {image.compression} of TIFF"))
    return None


def _require_bytes(image: _TiffImage) -> None:
    if image.sample_format == _FLOAT:
        raise UnsupportedFormat(
            "The slide stores its pixels as floating-point numbers, and slides are read with 8 bits per channel. "
            "Export it again as 8-bit RGB, or send the scanner's original file."
        )
    if image.sample_format == _IS_SIGNED:
        raise UnsupportedFormat(_SIGNED)
    if image.bits not in (0, 8):
        raise UnsupportedFormat(_wrong_bits(image.bits))


def _wrong_bits(bits: int) -> str:
    return (
        f"The slide stores {bits} bits per channel, and slides are read with 8. Export it again as 8-bit RGB, or send "
        "the scanner's original file."
    )


def _wrong_colors(name: str) -> str:
    known = name if name in _COLORS_KNOWN else "a colour space of its own"
    return (
        f"The slide stores its colours as {known}, which is not read with its compression. Export it again with JPEG "
        "in YBR_FULL_422, or with JPEG 2000."
    )


def _wrong_compression(name: str) -> str:
    return (
        f"The slide is compressed or stored with {name}, which is not read here. Export it again with JPEG or JPEG "
        "2000 compression."
    )


def _largest_image(path: Path) -> _TiffImage | None:
    """None for no TIFF, or one whose directories cannot be followed."""
    return max(_tiff_images(path), default=None)


def _tiff_images(path: Path) -> list[_TiffImage]:
    try:
        with path.open("rb") as file:
            return _images(file)
    except (struct.error, OSError, KeyError, ValueError, OverflowError):
        return []


def _images(file: BinaryIO) -> list[_TiffImage]:
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}[start[:2]]
    is_big = {42: False, 43: True}[struct.unpack_from(f"{order}H", start, 2)[0]]
    offset_code, count_code, entry = ("Q", "Q", "HHQ8s") if is_big else ("I", "H", "HHI4s")
    (at,) = struct.unpack_from(order + offset_code, start, 8 if is_big else 4)
    images, seen = [], set[int]()
    while at and at not in seen and len(seen) < _MAX_DIRECTORIES:
        seen.add(at)
        file.seek(at)
        (count,) = struct.unpack(order + count_code, file.read(struct.calcsize(count_code)))
        if count > _MAX_ENTRIES:
            break
        table = file.read(count * struct.calcsize(order + entry))
        values = {
            tag: _first_value(file, order, offset_code, kind, length, value)
            for tag, kind, length, value in struct.iter_unpack(order + entry, table)
            if tag in (256, 257, _BITS, _COMPRESSION, _SAMPLE_FORMAT, _TILE_WIDTH)
        }
        file.seek(at + struct.calcsize(count_code) + len(table))
        (at,) = struct.unpack(order + offset_code, file.read(struct.calcsize(offset_code)))
        area = values.get(256, 0) * values.get(257, 0)
        bits, compression, sample_format = (values.get(tag, 0) for tag in (_BITS, _COMPRESSION, _SAMPLE_FORMAT))
        images.append(_TiffImage(area, bits, compression, sample_format, _TILE_WIDTH in values, order == ">"))
    return images


def _first_value(file: BinaryIO, order: str, offset_code: str, kind: int, length: int, value: bytes) -> int:
    code = {1: "B", 3: "H", 4: "I", 16: "Q"}[kind]
    if length * struct.calcsize(order + code) > len(value):
        file.seek(struct.unpack(order + offset_code, value)[0])
        value = file.read(struct.calcsize(order + code))
    return int(struct.unpack_from(order + code, value)[0])
