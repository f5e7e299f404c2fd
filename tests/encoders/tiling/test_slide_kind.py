"""Which files a reader is started for: all that OpenSlide can open, and no garbage."""

from pathlib import Path

import openslide
import pytest

from encoders.tiling.slide_kind import may_be_slide


def test_every_slide_that_opens_passes(shared_slides: Path, sample_slide: Path) -> None:
    files = [sample_slide, *(path for path in shared_slides.rglob("*") if path.is_file())]
    opens = [path for path in files if openslide.OpenSlide.detect_format(path)]

    assert len(opens) > 5
    assert [path for path in opens if not may_be_slide(path, path.name)] == []


@pytest.mark.parametrize(
    "head",
    [
        b"II*\x00" + bytes(8),
        b"MM\x00+" + bytes(8),
        bytes(128) + b"DICM" + bytes(8),
        b"SQLite format 3\x00",
        b"ZISRAWFILE" + bytes(22),
        b"\xef\xbb\xbf[Virtual Microscope Specimen]\r\nNoLayers=1\r\n",
        b"; a comment\n[Uncompressed Virtual Microscope Specimen]\n",
    ],
)
def test_what_openslide_would_read_on_passes_by_its_first_bytes(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(head)

    assert may_be_slide(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"II", b"garbage" * 1000, b"\xff\xd8\xff\xe0 JFIF", b"%PDF", b"DICM", b"PK\x03\x04" + bytes(99)],
)
def test_garbage_does_not(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)

    assert not may_be_slide(path, "slide.svs")
    assert may_be_slide(path, "slide.mrxs")
