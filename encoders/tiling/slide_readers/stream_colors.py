"""The colours that a compressed tile itself declares: evidence in its head, compared with what its container says.

JPEG has no colour space of its own; these are the places where writers say or betray one, for three components:

- a JFIF marker: YCbCr of BT.601, always (ITU-T T.871, 6.1);
- Adobe's APP14: transform 0 is RGB, 1 is YCbCr (Adobe TN 5116, and ITU-T T.872, 6.5.3);
- component numbers "R", "G", "B": RGB, as libjpeg writes and reads them (jdapimin.c, default_decompress_parms);
- chroma that is sampled more coarsely than the first component: YCbCr, because no writer halves red and green apart;
- numbers 1, 2, 3 as JFIF has them, and a second quantisation table that the last two components share: YCbCr. Such
  tables are made for luminance and chrominance. libjpeg, too, takes an unmarked stream with these numbers for YCbCr,
  but by itself that is no evidence: TIFF writers leave markers out and number as they like (TIFF Technical Note 2).

Aperio's RGB has no marker, numbers 0, 1, 2 and one table for all: it declares nothing, and the container has the word.
"""

import struct
from typing import Literal

from encoders.tiling.slide_readers.jpeg_segments import FRAMES, START, MalformedJpeg, segments

# "unclear": the stream contradicts itself. None: it says nothing.
StreamColor = Literal["rgb", "ycbcr", "unclear"] | None
_APP0, _APP14 = 0xE0, 0xEE
_ADOBE_TRANSFORMS: dict[int, StreamColor] = {0: "rgb", 1: "ycbcr"}
_J2K_START = b"\xff\x4f\xff\x51"
_COD, _SOT = 0x52, 0x90
# Heads are shorter, but for streams that carry a profile or a picture, which are then read whole.
HEAD_BYTES = 2_048


def jpeg_color(stream: bytes, at: int = len(START)) -> StreamColor:
    """Of a JPEG stream whose own segments begin at `at`, cut behind its head or not; raises MalformedJpeg."""
    said: set[StreamColor] = set()
    frame = b""
    for marker, start, stop in segments(stream, at):
        body = stream[start + 4 : stop]
        if marker == _APP0 and body.startswith(b"JFIF\0"):
            said.add("ycbcr")
        elif marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12:
            said.add(_ADOBE_TRANSFORMS.get(body[11], "unclear"))
        elif marker in FRAMES:
            frame = body
    if not frame:
        raise MalformedJpeg
    return _by_frame(frame, said) if len(frame) == 15 and frame[5] == 3 else None


def _by_frame(frame: bytes, said: set[StreamColor]) -> StreamColor:
    numbers, samplings, tables = frame[6::3], frame[7::3], frame[8::3]
    if numbers == b"RGB":
        said.add("rgb")
    if any(samplings[0] >> 4 > other >> 4 or samplings[0] & 15 > other & 15 for other in samplings[1:]):
        said.add("ycbcr")
    if not said and numbers == b"\1\2\3" and tables[0] != tables[1] == tables[2]:
        said.add("ycbcr")
    return said.pop() if len(said) == 1 else "unclear" if said else None


def is_j2k(stream: bytes) -> bool:
    """Whether it is a JPEG 2000 codestream."""
    return stream.startswith(_J2K_START)


def j2k_color(stream: bytes) -> StreamColor:
    """Of a JPEG 2000 codestream (ITU-T T.800, annex A), by its head; raises MalformedJpeg.

    A component transform is defined on red, green and blue, and a decoder always undoes it: what comes out is RGB.
    Without one only coarser chroma says something. Colour boxes belong to files (JP2), which no slide has as tiles.
    """
    try:
        (components,) = struct.unpack_from(">H", stream, 40)
        if components != 3:
            return None
        steps = [stream[43 + 3 * index : 45 + 3 * index] for index in range(3)]
        subsampled = any(step != steps[0] for step in steps[1:])
        transformed = False
        at = 2
        while (marker := stream[at + 1]) != _SOT:
            if stream[at] != 0xFF:
                raise MalformedJpeg
            if marker == _COD:
                transformed = stream[at + 8] == 1
            at += 2 + int.from_bytes(stream[at + 2 : at + 4])
    except (struct.error, IndexError):
        raise MalformedJpeg from None
    if transformed and subsampled:
        return "unclear"
    return "rgb" if transformed else "ycbcr" if subsampled else None
