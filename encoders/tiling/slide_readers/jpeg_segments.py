"""The marker segments at the head of a JPEG stream (ITU-T T.81, annex B): what a tile is, before a decoder sees it."""

from collections.abc import Iterator
from typing import NamedTuple

START, END = b"\xff\xd8", b"\xff\xd9"
_DQT, _DHT, _COM = 0xDB, 0xC4, 0xFE
_APPLICATION = range(0xE0, 0xF0)
# SOF0, SOF1, SOF2: baseline, extended, progressive. All others are lossless, hierarchical or arithmetic.
_DCT_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
# Within the range of SOFn, but DHT, JPG and DAC.
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers without a length: EOI, SOS (what follows it is no segment), SOI and RSTn; none belongs between segments.
_EOI, _SOS = 0xD9, 0xDA
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
_SCAN_START = bytes((0xFF, _SOS))
_LENGTH_BYTES = 2


class MalformedJpeg(Exception):
    """The stream's head is no sequence of segments."""


class Segment(NamedTuple):
    """One segment, its marker among its bytes: `stream[start:stop]`."""

    marker: int
    start: int
    stop: int


def segments(stream: bytes, at: int = len(START)) -> Iterator[Segment]:
    """Those from `at` up to the first scan or the end; raises MalformedJpeg."""
    while True:
        while stream[at : at + 2] == b"\xff\xff":  # fill bytes
            at += 1
        if at + 2 > len(stream) or stream[at] != 0xFF:
            raise MalformedJpeg
        marker = stream[at + 1]
        if marker in (_EOI, _SOS):
            return
        length = int.from_bytes(stream[at + 2 : at + 4])
        stop = at + 2 + length
        if marker in _BARE or marker < 0xC0 or length < _LENGTH_BYTES or stop > len(stream):
            raise MalformedJpeg
        yield Segment(marker, at, stop)
        at = stop


def only_tables(tables: bytes, own_tables: frozenset[bytes] = frozenset()) -> bytes:
    """The quantisation and Huffman tables of an abbreviated stream, without SOI and EOI.

    Huffman tables are left out where all of them are among `own_tables`, which the decoder takes where a stream has
    none. Comments and application data, which OpenSlide ignores there, are left out. Raises MalformedJpeg for anything
    else, which would act on every tile that the tables are put before.
    """
    if not (tables.startswith(START) and tables.endswith(END)):
        raise MalformedJpeg
    kept: dict[int, list[bytes]] = {_DQT: [], _DHT: []}
    for segment in segments(tables):
        if segment.marker in kept:
            kept[segment.marker].append(tables[segment.start : segment.stop])
        elif segment.marker != _COM and segment.marker not in _APPLICATION:
            raise MalformedJpeg
    huffman = [] if own_tables.issuperset(kept[_DHT]) else kept[_DHT]
    return b"".join(kept[_DQT] + huffman)


def huffman_tables(stream: bytes) -> frozenset[bytes]:
    """The segments at the head of a stream that define Huffman tables; raises MalformedJpeg."""
    return frozenset(stream[segment.start : segment.stop] for segment in segments(stream) if segment.marker == _DHT)


def without_application_data(stream: bytes, at: int) -> bytes:
    """From `at` on, less what applications say at its head; raises MalformedJpeg."""
    kept, end = [], at
    for segment in segments(stream, at):
        end = segment.stop
        if segment.marker not in _APPLICATION:
            kept.append(stream[segment.start : segment.stop])
    return b"".join([*kept, stream[end:]])


def dct_head(stream: bytes, at: int) -> bytes:
    """From `at` up to the marker of the first scan, which no other segment can follow unseen.

    Raises MalformedJpeg unless its frame is made of cosine transforms, the only kind that a decoder can reduce: of a
    lossless one libjpeg-turbo writes every pixel, whatever room there is (seen: simplejpeg 1.9.0 with a smaller picture
    asked for writes beyond its buffer).
    """
    found = list(segments(stream, at))
    frame = next((segment.marker for segment in found if segment.marker in FRAMES), None)
    stop = found[-1].stop if found else at
    if frame not in _DCT_FRAMES or not stream.startswith(_SCAN_START, stop):
        raise MalformedJpeg
    return stream[at : stop + len(_SCAN_START)]
