"""Every tile's own colours against its container's, for what OpenSlide reads: it believes the container alone.

OpenSlide decodes a TIFF's tiles by the directory and DICOM's by PhotometricInterpretation, whatever the streams say.
So a slide is refused when one of its tiles says otherwise. A head is some hundred bytes: the 46,000 tiles of a large
slide take a fraction of a second, beside the minutes that OpenSlide takes to decode them.
"""

import os
from pathlib import Path

import numpy as np

from encoders.errors import UnreadableSlide
from encoders.tiling.slide_readers.color_conflict import color_conflict
from encoders.tiling.slide_readers.dicom_frames import DicomFrames, open_dicom
from encoders.tiling.slide_readers.jpeg_segments import START, MalformedJpeg, segments
from encoders.tiling.slide_readers.not_eligible import NotEligible
from encoders.tiling.slide_readers.stream_colors import HEAD_BYTES, StreamColor, is_j2k, j2k_color, jpeg_color
from encoders.tiling.slide_readers.tiff_levels import RGB, YCBCR, TiledImage, read_tiled_images

_JPEG = 7
_TIFF_COLORS: dict[int, StreamColor] = {RGB: "rgb", YCBCR: "ycbcr"}
# Aperio's own numbers for JPEG 2000.
_APERIO_COLORS: dict[int, StreamColor] = {33003: "ycbcr", 33005: "rgb"}
# Encoders that a file may come from; with more, or tables made for each tile, every head is parsed.
_KNOWN_HEADS = 16
# A stream with a profile before its frame; a longer head is no scanner's, and is judged by what was read.
_MAX_HEAD_BYTES = 4 * 2**20
# By PhotometricInterpretation (DICOM PS3.3, C.7.6.3.1.2) the space that OpenSlide takes decoded components for. A J2K
# stream of YBR_RCT or YBR_ICT is RGB behind the transform, so without one it is not what its name says.
_DICOM_COLORS: dict[str, StreamColor] = {
    "RGB": "rgb",
    "YBR_RCT": "rgb",
    "YBR_ICT": "rgb",
    "YBR_FULL": "ycbcr",
    "YBR_FULL_422": "ycbcr",
    "YBR_PARTIAL_420": "ycbcr",
    "YBR_PARTIAL_422": "ycbcr",
}
_TRANSFORMED = ("YBR_RCT", "YBR_ICT")


def check_container_colors(path: Path, vendor: str) -> None:
    """Raises ColorConflict when a tile that OpenSlide would read says that it has other colours."""
    if vendor == "dicom":
        for frames in open_dicom(path):
            _check_dicom(frames)
        return
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # whoever reads the slide next says so
    try:
        for image in _tiled_images(file):
            check_tiff_colors(file, image)
    finally:
        os.close(file)


def _tiled_images(file: int) -> tuple[TiledImage, ...]:
    """None of what is no TIFF, or of one whose directories only OpenSlide understands."""
    try:
        return read_tiled_images(file)
    except (NotEligible, UnreadableSlide):
        return ()


def tiff_color(image: TiledImage) -> StreamColor:
    """What OpenSlide takes the components of the image's tiles for; None for compressions without such a question."""
    if image.compression == _JPEG:
        return _TIFF_COLORS.get(image.photometric)
    return _APERIO_COLORS.get(image.compression)


def check_tiff_colors(file: int, image: TiledImage) -> None:
    """Looks at the head of every tile of one image; raises ColorConflict."""
    container = tiff_color(image)
    if container is None:
        return
    seen: dict[bytes, StreamColor] = {}
    for offset, count in zip(image.offsets.ravel().tolist(), image.byte_counts.ravel().tolist(), strict=True):
        if count and _color_at(file, offset, count, seen) not in (container, None):
            raise color_conflict()


def contradicts_in_sample(file: int, image: TiledImage, most: int) -> bool:
    """Whether one of up to `most` tiles, spread over the image, says that it has other colours than the image."""
    container = tiff_color(image)
    seen: dict[bytes, StreamColor] = {}
    total = image.offsets.size
    # At random, for tiles of a second encoder may come in any step.
    chosen = np.arange(total) if total <= most else np.random.default_rng(0).choice(total, most, replace=False)
    offsets, counts = image.offsets.ravel()[chosen].tolist(), image.byte_counts.ravel()[chosen].tolist()
    return any(
        count and _color_at(file, offset, count, seen) not in (container, None)
        for offset, count in zip(offsets, counts, strict=True)
    )


def _check_dicom(frames: DicomFrames) -> None:
    container = _DICOM_COLORS.get(frames.photometric)
    if container is None:
        return
    seen: dict[bytes, StreamColor] = {}
    for offset, count in frames.fragments():
        color = _color_at(frames.file, offset, count, seen)
        untransformed = frames.photometric in _TRANSFORMED and frames.is_j2k and color is None
        if color not in (container, None) or (untransformed and frames.starts_stream(offset)):
            raise color_conflict()


def _color_at(file: int, offset: int, count: int, seen: dict[bytes, StreamColor]) -> StreamColor:
    """By the stream's head; None also for a stream without a head that can be understood: decoding it will fail."""
    try:
        head = os.pread(file, min(count, HEAD_BYTES), offset)
        for known, color in seen.items():
            if head.startswith(known):
                return color
        color, like_it = _judge(head)
        if not like_it and count > len(head):
            head = os.pread(file, min(count, _MAX_HEAD_BYTES), offset)
            color, like_it = _judge(head)
    except OSError:
        return None
    if like_it and len(seen) < _KNOWN_HEADS:
        seen[like_it] = color
    return color


def _judge(head: bytes) -> tuple[StreamColor, bytes]:
    """The colour, and the head as far as every stream that begins with it has this colour; b"" where it is cut."""
    try:
        if is_j2k(head):
            return j2k_color(head), head[: head.index(b"\xff\x90")]
        if not head.startswith(START):
            return None, b""
        return jpeg_color(head), head[: _first_scan(head)]
    except (MalformedJpeg, ValueError):
        return None, b""


def _first_scan(head: bytes) -> int:
    """Where its marker ends: no other segment can follow unseen."""
    stop = len(START)
    for segment in segments(head):
        stop = segment.stop
    return stop + 2
