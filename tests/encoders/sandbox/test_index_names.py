"""What an index may name where the kernel keeps nobody from any file. Pure: no process, no OpenSlide."""

from pathlib import Path

import pytest
from slides_of_several import write_mirax, write_vms

from encoders.errors import UnreadableSlide
from encoders.sandbox.index_names import require_names_inside
from encoders.sandbox.shown_files import shown_files


def require(entry: Path, *, is_confined: bool = False) -> None:
    require_names_inside(shown_files(entry, entry.parent), is_confined=is_confined)


def test_names_of_files_that_came_along_are_fine(tmp_path: Path) -> None:
    require(write_vms(tmp_path / "vms"))
    require(write_mirax(tmp_path / "mirax"))


@pytest.mark.parametrize("is_confined", [True, False])
@pytest.mark.parametrize(
    "line",
    [
        b"ImageFile=../image.jpg",
        b"ImageFile=/etc/passwd",
        b"  ImageFile(0,0) =  sub/image.jpg  ",
        b"ImageFile=..",
        b"MapFile=..\r/map.jpg\r",
        b"OptimisationFile=/dev/zero",
        b"ImageFile\x00ignored=../image.jpg",
        b"ImageFile=map.jpg\x00",
        b"MacroImage=a=/b",
    ],
)
def test_names_that_lead_away_are_refused(tmp_path: Path, line: bytes, *, is_confined: bool) -> None:
    path = write_vms(tmp_path / "vms")
    path.write_bytes(path.read_bytes() + line + b"\n")

    with pytest.raises(UnreadableSlide, match="not part of it"):
        require(path, is_confined=is_confined)


def test_a_file_that_was_not_brought_along_is_refused_unless_the_kernel_would(tmp_path: Path) -> None:
    path = write_vms(tmp_path / "vms", OptimisationFile="slide.opt")

    require(path, is_confined=True)
    with pytest.raises(UnreadableSlide):
        require(path)


def test_mirax_names_are_those_of_its_slidedat(tmp_path: Path) -> None:
    for names in ({"data": "../secret"}, {"index": "/etc/passwd"}):
        with pytest.raises(UnreadableSlide):
            require(write_mirax(tmp_path / "mirax", **names), is_confined=True)


@pytest.mark.parametrize(
    "line", ["\r = x\rFILE_0 = ../../secret", " = x\rFILE_0 = ../../secret", "\r\r=\r\rINDEXFILE = ../i"]
)
@pytest.mark.parametrize("is_confined", [True, False])
def test_a_key_behind_an_empty_one_which_openslide_blanks_counts(
    tmp_path: Path, line: str, *, is_confined: bool
) -> None:
    path = write_mirax(tmp_path / "mirax", data=f"Data0000.dat\n{line}")

    with pytest.raises(UnreadableSlide, match="not part of it"):
        require(path, is_confined=is_confined)


@pytest.mark.parametrize("place", ["", "inner"])
def test_an_index_without_a_name_has_its_parts_in_its_own_folder(tmp_path: Path, place: str) -> None:
    written = write_mirax(tmp_path / place, data="../secret")
    entry = written.with_name(".mrxs")
    written.rename(entry)
    for part in (entry.parent / "slide").iterdir():
        part.rename(entry.parent / part.name)

    with pytest.raises(UnreadableSlide, match="not part of it"):
        require_names_inside(shown_files(entry, tmp_path), is_confined=False)


def test_comments_and_other_keys_name_nothing(tmp_path: Path) -> None:
    path = write_vms(tmp_path / "vms")
    path.write_text(path.read_text() + "# ImageFile=/etc/passwd\nCreated=2010/01/02\n")

    require(path)


@pytest.mark.parametrize("neighbour", ["slide.Full", "slide.svslide-journal", "slide.svslide-wal"])
def test_a_file_beside_that_openslide_would_read_is_refused(tmp_path: Path, neighbour: str) -> None:
    entry = tmp_path / ("slide.tif" if neighbour.endswith("Full") else "slide.svslide")
    entry.write_bytes(b"any")
    require_names_inside(shown_files(entry, None), is_confined=False)
    (tmp_path / neighbour).write_bytes(b"any")

    with pytest.raises(UnreadableSlide):
        require_names_inside(shown_files(entry, None), is_confined=False)
    require_names_inside(shown_files(entry, None), is_confined=True)
    require_names_inside(shown_files(entry, tmp_path), is_confined=False)
