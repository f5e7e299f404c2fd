import hostile_jpeg
import imagecodecs
import numpy as np
import pytest

from encoders.tiling.slide_readers.jpeg_segments import MalformedJpeg, dct_head, huffman_tables, only_tables, segments

PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
JPEG = bytes(imagecodecs.jpeg8_encode(PIXELS, level=85))
DQT, DHT = b"\xff\xdb\x00\x03\x00", b"\xff\xc4\x00\x03\x00"
COMMENT, APP0 = b"\xff\xfe\x00\x04hi", b"\xff\xe0\x00\x02"


def tables(*parts: bytes) -> bytes:
    return b"\xff\xd8" + b"".join(parts) + b"\xff\xd9"


def test_segments_end_at_the_first_scan() -> None:
    found = list(segments(JPEG))
    assert {segment.marker for segment in found} >= {0xDB, 0xC0, 0xC4}
    assert JPEG[found[-1].stop : found[-1].stop + 2] == b"\xff\xda"


def test_fill_bytes_are_skipped() -> None:
    assert [segment.marker for segment in segments(tables(b"\xff\xff" + DQT, b"\xff" + DHT))] == [0xDB, 0xC4]


@pytest.mark.parametrize("end", [2, 3, 5, 20])
def test_a_head_that_is_cut_is_malformed(end: int) -> None:
    with pytest.raises(MalformedJpeg):
        list(segments(JPEG[:end]))


def test_tables_are_kept_and_what_openslide_ignores_is_left_out() -> None:
    assert only_tables(tables(APP0, DQT, COMMENT, DHT)) == DQT + DHT


def test_huffman_tables_are_left_out_where_the_decoder_has_all_of_them() -> None:
    other = b"\xff\xc4\x00\x03\x01"
    own = frozenset({DHT})
    assert only_tables(tables(DHT, DQT), own) == DQT
    assert only_tables(tables(DQT, DHT, DHT), own) == DQT
    assert only_tables(tables(DHT, DQT, other), own) == DQT + DHT + other
    assert only_tables(tables(DQT, other), own) == DQT + other


def test_the_huffman_tables_of_a_stream() -> None:
    found = huffman_tables(JPEG)
    assert found
    assert all(table.startswith(b"\xff\xc4") and table in JPEG for table in found)
    assert huffman_tables(tables(DQT)) == frozenset()


@pytest.mark.parametrize(
    "wrong",
    [b"\xff\xdd\x00\x04\x00\x04", b"\xff\xc0\x00\x02", b"\xff\xcc\x00\x02", b"\xff\xd8", b"\xff\xdb\x00\x01", b"hello"],
    ids=["DRI", "SOF", "DAC", "SOI", "too short", "no marker"],
)
def test_tables_that_would_act_on_other_tiles_are_refused(wrong: bytes) -> None:
    with pytest.raises(MalformedJpeg):
        only_tables(tables(DQT, wrong))


def test_tables_without_start_or_end_are_refused() -> None:
    for cut in (tables(DQT)[2:], tables(DQT)[:-2]):
        with pytest.raises(MalformedJpeg):
            only_tables(cut)


def test_the_head_of_a_stream_of_cosine_transforms_ends_with_its_scans_marker() -> None:
    for stream in (JPEG, hostile_jpeg.encode_grey(PIXELS)):
        head = dct_head(stream, 2)
        assert stream.startswith(head, 2)
        assert head.endswith(b"\xff\xda")
        assert head.count(b"\xff\xda") == 1


@pytest.mark.parametrize(
    "stream",
    [
        bytes(imagecodecs.jpeg8_encode(PIXELS, colorspace="rgb", outcolorspace="rgb", lossless=True)),
        JPEG[:10],
        JPEG[:2],
        tables(DQT),
        JPEG[: JPEG.index(b"\xff\xda")] + b"\xff\xd9",
    ],
    ids=["lossless", "cut", "empty", "no frame", "no scan"],
)
def test_a_head_without_cosine_transforms_or_a_scan_is_malformed(stream: bytes) -> None:
    with pytest.raises(MalformedJpeg):
        dct_head(stream, 2)
