"""A slide on this machine, read without a server: in a reader process, as everywhere."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from encoders.errors import UnsupportedFormat
from encoders.precomputed.features_kind import features_kind
from encoders.tiling.isolation.reader_process import ReaderProcess
from encoders.tiling.repeated_levels import repeated_levels
from encoders.tiling.slide_kind import name_to_open
from server.commands.outcome import CommandError, ExitCode
from server.settings import Settings
from server.uploads.slide_inspection import reader_limits
from server.uploads.slide_source import INDEX_SUFFIXES, LocalSource, arranged, why_no_slide

# Formats of several files: the reader is shown what lies beside such a file. Any other slide is one file.
_SUFFIXES_OF_SEVERAL = (*INDEX_SUFFIXES, ".dcm", ".dicom")
_MOST_FILES_BESIDE = 5_000


@contextmanager
def read_here(path: Path, settings: Settings) -> Iterator[tuple[LocalSource, ReaderProcess]]:
    """The slide's files, and its reader.

    Raises:
        SlideError: it is not one, or the server would not hand it to a reader.
        CommandError: there is too much beside it.
    """
    _require_slide(path)
    with (
        _with_its_files(path) as slide,
        ReaderProcess(slide.path, reader_limits(settings), folder=slide.folder) as reader,
    ):
        yield slide, reader


def _require_slide(path: Path) -> None:
    """Raises UnsupportedFormat for what the server would not hand to a reader."""
    if features_kind(path) is not None:
        raise UnsupportedFormat("These are precomputed features, which have no pixels to look at. Upload them.")
    name = path.name.lower()
    lies_alone = not name.endswith(_SUFFIXES_OF_SEVERAL) or (
        name.endswith(".mrxs") and not any(path.with_suffix("").glob("*"))
    )
    if lies_alone and (reason := why_no_slide(path, path.name)):
        raise UnsupportedFormat(reason)


@contextmanager
def _with_its_files(path: Path) -> Iterator[LocalSource]:
    """A slide as the server would get it if all of its files were uploaded."""
    if not path.name.lower().endswith(_SUFFIXES_OF_SEVERAL):
        yield LocalSource(path)
        return
    own = path.absolute()
    beside = [*own.parent.iterdir(), *own.with_suffix("").glob("*")]
    places = {str(file.relative_to(own.parent)): file for file in beside if file.is_file()}
    if len(places) > _MOST_FILES_BESIDE:
        raise CommandError(
            f"{own.parent} holds more than {_MOST_FILES_BESIDE} files; move the slide's own files to a folder of "
            "their own.",
            ExitCode.USAGE,
        )
    left_out = repeated_levels(places)
    read = {name: file for name, file in places.items() if name not in left_out}
    with tempfile.TemporaryDirectory(prefix="eyepiece-inspect-") as folder, arranged(read, Path(folder)) as root:
        yield LocalSource(root / name_to_open(left_out.get(own.name, own.name)), root)
