"""What `eyepiece upload` sends of a path: a file, MIRAX with its folder, a folder of DICOM."""

from pathlib import Path

import pytest

from server.commands.outcome import CommandError, ExitCode
from server.commands.slide_files import slide_files


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def test_a_file_is_sent_alone(tmp_path: Path) -> None:
    write(tmp_path, "a.svs", "b.svs")

    assert slide_files(tmp_path / "a.svs").files == {"a.svs": tmp_path / "a.svs"}


def test_a_folder_of_dicom_is_one_slide_without_what_is_no_part_of_any(tmp_path: Path) -> None:
    write(tmp_path / "series", "l0.dcm", "more/l1.dcm", "more/IM0003", ".DS_Store", ".git/x", "Thumbs.db", "DICOMDIR")

    found = slide_files(tmp_path / "series")

    assert list(found.files) == ["l0.dcm", "more/IM0003", "more/l1.dcm"]
    assert set(found.left_out) == {".DS_Store", ".git/x", "DICOMDIR", "Thumbs.db"}
    assert found.size_bytes == sum(len(name) for name in found.files)


MIRAX = ("case.mrxs", "case/Slidedat.ini", "case/Data0000.dat", "case/Index.dat")


@pytest.mark.parametrize("named", ["", "case.mrxs", "case"])
def test_mirax_is_sent_with_its_folder_whichever_of_them_is_named(tmp_path: Path, named: str) -> None:
    write(tmp_path / "in", *MIRAX)

    assert set(slide_files(tmp_path / "in" / named).files) == set(MIRAX)


def test_what_lies_beside_mirax_is_left_out_and_named(tmp_path: Path) -> None:
    write(tmp_path, *MIRAX, "notes.txt")

    found = slide_files(tmp_path)

    assert set(found.files) == set(MIRAX)
    assert found.left_out == ("notes.txt",)


@pytest.mark.parametrize(
    ("names", "named", "sentence"),
    [
        (("a.svs", "b.ndpi"), "", "more than one slide"),
        (("a.dcm", "b.tiff"), "", "more than one slide"),
        ((*MIRAX, "other.svs"), "", "more than one slide"),
        ((*MIRAX, "b.mrxs", "b/Index.dat"), "", "more than one slide"),
        (("case.mrxs",), "case.mrxs", "needs its folder case beside it"),
        ((".hidden",), "", "holds no file of a slide"),
        ((), "", "holds no file of a slide"),
        ((), "missing", "is not a file"),
    ],
)
def test_what_is_not_one_slide_is_refused_before_anything_is_sent(
    tmp_path: Path, names: tuple[str, ...], named: str, sentence: str
) -> None:
    write(tmp_path / "in", *names).mkdir(exist_ok=True)

    with pytest.raises(CommandError, match=sentence) as caught:
        slide_files(tmp_path / "in" / named)

    assert caught.value.exit_code == ExitCode.USAGE


def test_a_folder_that_holds_one_file_is_that_file(tmp_path: Path) -> None:
    write(tmp_path, "only.svs")

    assert list(slide_files(tmp_path).files) == ["only.svs"]
