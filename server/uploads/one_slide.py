"""Checks that all files of a form are one slide's. A file that would not be read is refused, never ignored."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from encoders.errors import UnsupportedFormat
from encoders.precomputed.features_kind import features_kind
from encoders.tiling.dicom_elements import SERIES
from encoders.tiling.dicom_head import SOP_CLASS, WHOLE_SLIDE, dicom_head
from encoders.tiling.slide_kind import may_be_slide
from server.errors import InvalidRequest

# Files that name others; a text of more is none of Hamamatsu's.
_MOST_INDEX_BYTES = 64 * 1024
_MOST_NAMED = 5
# What file systems take, in UTF-8.
MAX_FILENAME_BYTES = 255
MOST_FILES = 5_000


@dataclass(frozen=True)
class SourceFile:
    """One file: where it is now, and what the manifest says of it. `relative_path` can be PHI."""

    path: Path
    relative_path: str
    size_bytes: int
    sha256: str


def require_one_tree(paths: Sequence[str]) -> None:
    """Check that the names of several files can be paths within one slide.

    Raises:
        InvalidRequest: absolute, leaving the slide, unprintable, too long, or two of them in each other's way.
    """
    for path in paths:
        steps = path.split("/")
        if not path.isprintable() or len(path) > MAX_FILENAME_BYTES or any(step in ("", ".", "..") for step in steps):
            raise InvalidRequest("The files of a slide need plain relative paths as file names.")
        if any(len(step.encode()) > MAX_FILENAME_BYTES for step in steps):
            raise InvalidRequest(f"A file name is longer than {MAX_FILENAME_BYTES} bytes in UTF-8; shorten it.")
    folders = {str(folder) for path in paths for folder in PurePosixPath(path).parents}
    if len(set(paths)) < len(paths) or folders & set(paths):
        raise InvalidRequest("Two files of the slide have the same name.")


def require_one_slide(files: Sequence[SourceFile], entry: str, vendor: str) -> None:
    """Check that the slide that `entry` opens, of OpenSlide's `vendor`, is made of all the files.

    Raises:
        UnsupportedFormat: others are slides of their own, or no part of it; by place in the form, and by their names,
            which are their sender's own: the sentence is for the response alone.
    """
    own = next(file for file in files if file.relative_path == entry)
    if vendor == "dicom":
        series = _series(own.path)
        others = [file for file in files if file is not own and _series(file.path) != series]
    elif vendor == "mirax":
        others = [file for file in files if not _is_of_mirax(file, own)]
    elif vendor == "hamamatsu" and not _is_tiff(own.path):
        others = _not_named(files, own)
    else:  # a slide of one file
        others = [file for file in files if file is not own]
    if not others:
        return
    slides = [file for file in others if _may_be_slide_of_its_own(file)]
    if slides:
        raise UnsupportedFormat(
            f"One form is one slide, and {_named(slides, files)} of this one {_is_or_are(slides)} of another slide "
            f"than {_named([own], files)}. Send each slide in a form of its own."
        )
    raise UnsupportedFormat(
        f"F{_named(others, files)[1:]} of the form {_is_or_are(others)} no part of the slide and would not be read. "
        "Send the slide's own files alone."
    )


def _series(path: Path) -> tuple[object, object] | None:
    """What a file must share with the others of its slide; None for no DICOM file."""
    head = dicom_head(path)
    return (head.get(SERIES), head.get(SOP_CLASS, WHOLE_SLIDE)) if head else None


def _is_of_mirax(file: SourceFile, index: SourceFile) -> bool:
    """The index, or what lies in the folder of its name, unless that is a slide itself."""
    if file is index:
        return True
    folder = PurePosixPath(index.relative_path).with_suffix("")
    return folder in PurePosixPath(file.relative_path).parents and not may_be_slide(file.path, file.relative_path)


def _not_named(files: Sequence[SourceFile], index: SourceFile) -> list[SourceFile]:
    """The files that Hamamatsu's index does not name."""
    with index.path.open("rb") as opened:
        text = opened.read(_MOST_INDEX_BYTES)
    return [
        file
        for file in files
        if file is not index and PurePosixPath(file.relative_path).name.encode(errors="replace") not in text
    ]


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as opened:
        return opened.read(2) in (b"II", b"MM")


def _may_be_slide_of_its_own(file: SourceFile) -> bool:
    return may_be_slide(file.path, file.relative_path) or features_kind(file.path) is not None


def _named(some: Sequence[SourceFile], files: Sequence[SourceFile]) -> str:
    """Places in the form, from 1, and names."""
    words = [
        f"file {files.index(file) + 1} ({file.relative_path.rsplit('/', 1)[-1][:60]})" for file in some[:_MOST_NAMED]
    ]
    if len(some) > _MOST_NAMED:
        words.append(f"{len(some) - _MOST_NAMED} more")
    return ", ".join(words)


def _is_or_are(some: Sequence[SourceFile]) -> str:
    return "is" if len(some) == 1 else "are"
