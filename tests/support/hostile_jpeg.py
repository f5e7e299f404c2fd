"""JPEG streams as scanners write them, and as nobody should: taken apart, put together, repeated."""

import struct
from functools import partial

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
SOF0, SOF2, DHT, SOS, DQT, DRI, COM, APP14 = 0xC0, 0xC2, 0xC4, 0xDA, 0xDB, 0xDD, 0xFE, 0xEE
Segment = tuple[int, bytes]


def encode(
    rgb: NDArray[np.uint8],
    *,
    quality: int = 85,
    is_rgb: bool = False,
    subsampling: str = "420",
    optimize: bool = False,
) -> bytes:
    """A bare stream: tables and scan, no JFIF or Adobe marker; `is_rgb` with Aperio's component ids 0, 1, 2.

    With `optimize` its Huffman tables are its own.
    """
    colors = {"outcolorspace": "rgb"} if is_rgb else {"subsampling": subsampling}
    whole = imagecodecs.jpeg8_encode(rgb, level=quality, colorspace="rgb", optimize=optimize, **colors)
    segments, scan = split(bytes(whole))
    kept = [(marker, body) for marker, body in segments if not 0xE0 <= marker <= 0xEF]
    return join(_numbered(kept, b"\0\1\2") if is_rgb else kept, scan)


def encode_unusual(rgb: NDArray[np.uint8]) -> bytes:
    """Progressive, 4:2:2, restarts: a bare stream as few scanners write it."""
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422]
    _, whole = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    segments, scan = split(whole.tobytes())
    return join([part for part in segments if not 0xE0 <= part[0] <= 0xEF], scan)


def encode_lossless(rgb: NDArray[np.uint8], *, is_rgb: bool = False) -> bytes:
    """SOF3, which is no DCT: a decoder cannot reduce it, and libjpeg-turbo does not say so."""
    space = "rgb" if is_rgb else "ycbcr"
    return bytes(imagecodecs.jpeg8_encode(rgb, lossless=True, colorspace=space, outcolorspace=space))


def encode_grey(rgb: NDArray[np.uint8]) -> bytes:
    """A stream of one component."""
    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(rgb[..., 1]), level=85))


def split(jpeg: bytes) -> tuple[list[Segment], bytes]:
    """The segments up to and with the first SOS, and all that follows it."""
    segments, at = [], 2
    while True:
        marker, length = struct.unpack_from(">xBH", jpeg, at)
        segments.append((marker, jpeg[at + 4 : at + 2 + length]))
        at += 2 + length
        if marker == SOS:
            return segments, jpeg[at:]


def join(segments: list[Segment], scan: bytes) -> bytes:
    """The stream again; `scan` holds its own EOI."""
    return SOI + b"".join(segment(marker, body) for marker, body in segments) + scan


def segment(marker: int, body: bytes) -> bytes:
    """One marker segment."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def abbreviate(jpeg: bytes) -> tuple[bytes, bytes]:
    """TIFF's way of sharing: (JPEGTables, stream without tables)."""
    segments, scan = split(jpeg)
    tables = [part for part in segments if part[0] in (DQT, DHT)]
    rest = [part for part in segments if part[0] not in (DQT, DHT)]
    return SOI + b"".join(segment(*part) for part in tables) + EOI, join(rest, scan)


def with_size(jpeg: bytes, width_px: int, height_px: int) -> bytes:
    """The same stream whose frame header claims another size."""
    segments, scan = split(jpeg)
    return join([_sized(part, width_px, height_px) for part in segments], scan)


def resampled(jpeg: bytes, component: int, sampling: int) -> bytes:
    """The stream whose frame header claims other factors, horizontal × 16 + vertical, for one component."""
    segments, scan = split(jpeg)
    changed = [
        (marker, body[: 7 + 3 * component] + bytes([sampling]) + body[8 + 3 * component :]) if marker == SOF0 else part
        for part in segments
        for marker, body in [part]
    ]
    return join(changed, scan)


def without(jpeg: bytes, marker: int) -> bytes:
    """The stream without the segments of one kind."""
    segments, scan = split(jpeg)
    return join([part for part in segments if part[0] != marker], scan)


def renumbered(jpeg: bytes, numbers: bytes) -> bytes:
    """The stream whose components have these numbers."""
    segments, scan = split(jpeg)
    return join(_numbered(segments, numbers), scan)


def with_segments(jpeg: bytes, *parts: Segment) -> bytes:
    """The stream with segments right behind its SOI."""
    return SOI + b"".join(segment(*part) for part in parts) + jpeg[2:]


def adobe(transform: int) -> Segment:
    """The marker that says whether the components are RGB (0) or YCbCr (1)."""
    return APP14, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform)


def flat(width_px: int, height_px: int) -> bytes:
    """Mid-grey of any size up to 65,500 px: 4 bytes per 16 × 16 pixels, made without a picture in memory."""
    grey = np.full((16, 16, 3), 128, np.uint8)
    segments, _ = split(with_size(encode(grey), width_px, height_px))
    # In the standard tables "no difference" is 00 and "end of block" 1010 (luma) or 00 (chroma): 4 × Y, Cb, Cr.
    mcu = 0b001010_001010_001010_001010_0000_0000.to_bytes(4)
    count = -(-width_px // 16) * -(-height_px // 16)
    return join(segments, mcu * count + EOI)


def slow(side_px: int) -> bytes:
    """A valid grey stream of 2,646 progressive scans: the decoder walks over every block of the tile for each of them.

    Every bit of every coefficient has a scan of its own, which says in a few bytes that nothing changes.
    """
    blocks = (-(-side_px // 8)) ** 2
    one_code = bytes([1, *[0] * 15])  # a Huffman table with one code, the bit 0
    head = [
        (DQT, bytes([0]) + bytes([1] * 64)),
        (SOF2, struct.pack(">BHH", 8, side_px, side_px) + bytes([3, 0, 0x11, 0, 1, 0x11, 0, 2, 0x11, 0])),
        (DHT, bytes([0x00]) + one_code + bytes([0])),  # DC: no difference
        (DHT, bytes([0x10]) + one_code + bytes([0xE0])),  # AC: 2^14 blocks that end here, and 14 bits more of them
        (SOS, bytes([3, 0, 0, 1, 0, 2, 0, 0, 0, 0])),
    ]
    nothing = _bits(("0" + "1" * 14) * -(-blocks // 32_767))
    bits = [(high, high - 1) for high in range(13, 0, -1)]
    scans = [
        segment(SOS, bytes([1, component, 0, index, index, (high << 4) + low])) + nothing
        for component in range(3)
        for index in range(1, 64)
        for high, low in [(0, 13), *bits]
    ]
    return join(head, _bits("0" * 3 * blocks) + b"".join(scans) + EOI)


def _bits(text: str) -> bytes:
    padded = text.ljust(-(-len(text) // 8) * 8, "1")
    return int(padded, 2).to_bytes(len(padded) // 8).replace(b"\xff", b"\xff\0")


def _sized(part: Segment, width_px: int, height_px: int) -> Segment:
    marker, body = part
    return part if marker != SOF0 else (marker, body[:1] + struct.pack(">HH", height_px, width_px) + body[5:])


def _numbered(segments: list[Segment], numbers: bytes) -> list[Segment]:
    """The components' numbers in frame and scan header."""
    changed = []
    for marker, body in segments:
        head = bytearray(body)
        first, step = {SOF0: (6, 3), SOS: (1, 2)}.get(marker, (0, 0))
        for index in range(len(numbers) if step else 0):
            head[first + index * step] = numbers[index]
        changed.append((marker, bytes(head)))
    return changed


KINDS = (
    encode,
    partial(encode, subsampling="444"),
    partial(encode, subsampling="422"),
    partial(encode, is_rgb=True),
    encode_unusual,
    encode_lossless,
    partial(encode_lossless, is_rgb=True),
    encode_grey,
)
