"""JPEG tiles as scanners store them: abbreviated streams beside one common set of tables, and no marker of a colour."""

from dataclasses import dataclass

import imagecodecs
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from benchmarks.slide_recipes import Coding

# ISO/IEC 10918-1, table B.1.
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SOF0, _DHT, _SOS, _DQT = 0xC0, 0xC4, 0xDA, 0xDB


@dataclass(frozen=True)
class Split:
    """A stream taken apart: what TIFF keeps once, and what each tile keeps."""

    tables: bytes
    tile: bytes


def encode_tile(pixels: NDArray[np.uint8], coding: Coding) -> Split:
    """RGB uint8 [h, w, 3] as an abbreviated stream; the tables depend on the coding alone."""
    if coding.is_rgb:
        whole = imagecodecs.jpeg8_encode(
            pixels, level=coding.quality, colorspace="rgb", outcolorspace="rgb", subsampling="444"
        )
        return _split(bytes(whole), rename_components=True)
    whole = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), quality=coding.quality, colorspace="RGB", colorsubsampling="420", fastdct=False
    )
    return _split(bytes(whole), rename_components=False)


def _split(stream: bytes, *, rename_components: bool) -> Split:
    """Tables apart from frame and scan; APP markers, by which decoders guess the colour space, are left out."""
    tables, kept, at = [_SOI], [_SOI], 2
    while stream[at + 1] != _SOS:
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4])
        segment = stream[at:end]
        if stream[at + 1] in (_DQT, _DHT):
            tables.append(segment)
        elif stream[at + 1] == _SOF0:
            kept.append(_numbered(segment, first=10, step=3) if rename_components else segment)
        at = end
    end = at + 2 + int.from_bytes(stream[at + 2 : at + 4])
    scan = stream[at:end]
    kept += [_numbered(scan, first=5, step=2) if rename_components else scan, stream[end:]]
    return Split(b"".join([*tables, _EOI]), b"".join(kept))


def _numbered(segment: bytes, *, first: int, step: int) -> bytes:
    """The three components called 0, 1, 2, as on Aperio's RGB slides; libjpeg calls them R, G, B."""
    changed = bytearray(segment)
    for index in range(3):
        changed[first + step * index] = index
    return bytes(changed)
