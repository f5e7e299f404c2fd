"""Which of an upload's files is opened as the slide: few are tried, so the order counts."""

from pathlib import Path
from typing import cast

import pytest

from encoders.errors import UnsupportedFormat
from encoders.types import SlideFacts
from server.uploads.slide_inspection import SlideInspector
from server.uploads.slide_source import SourceFile, find_entry

FACTS = SlideFacts("dicom", 100, 100, 0.5, 20.0)
# Where file meta information begins: its length, its version, then the class of what is stored.
_META = bytes(128) + b"DICM" + b"\x02\0\0\0UL\x04\0\xc8\0\0\0" + b"\x02\0\x01\0OB\0\0\x02\0\0\0\0\x01"
SLIDE, SEGMENTATION = "1.2.840.10008.5.1.4.1.1.77.1.6", "1.2.840.10008.5.1.4.1.1.66.4"


class OpensSlides:
    """Takes files of whole-slide images and no others, as OpenSlide does."""

    def __init__(self) -> None:
        self.tried: list[str] = []

    async def facts(self, tenant: str, path: Path, folder: Path | None = None) -> SlideFacts:
        """Of such a file; raises UnsupportedFormat."""
        self.tried.append(path.name)
        if SLIDE.encode() not in path.read_bytes()[:1024]:
            raise UnsupportedFormat("This is none.")
        return FACTS


def source_file(folder: Path, name: str, content: bytes) -> SourceFile:
    path = folder / name
    path.write_bytes(content)
    return SourceFile(path, name, len(content), name)


def dicom(stored: str, size_bytes: int) -> bytes:
    text = stored.encode() + b"\0" * (len(stored) % 2)
    return (_META + b"\x02\0\x02\0UI" + len(text).to_bytes(2, "little") + text + b"\x02\0\x03\0").ljust(size_bytes)


async def test_larger_results_of_analyses_beside_a_series_are_named_and_do_not_hide_it(tmp_path: Path) -> None:
    others = [source_file(tmp_path, f"a{index}.dcm", dicom(SEGMENTATION, 9000 + index)) for index in range(6)]
    slide = [source_file(tmp_path, f"l{index}.dcm", dicom(SLIDE, 2000 - index)) for index in range(3)]
    inspector = OpensSlides()

    with pytest.raises(UnsupportedFormat, match=r"a0.dcm.* than file 7 \(l0.dcm\)"):
        await find_entry("t", [*others, *slide], tmp_path, cast(SlideInspector, inspector))
    assert inspector.tried == ["l0.dcm"]
