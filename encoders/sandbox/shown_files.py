"""The files of one slide, as the child that parses it is to see them: their names and where they really lie."""

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ShownFiles:
    """`entry` is the file to open; `folder` holds this slide's files and no others, None for a slide of one file.

    `places` maps the path of each file relative to the slide to a regular file without links in its path. What is not
    a regular file (a FIFO, a device, a link to nothing) is left out.
    """

    entry: Path
    folder: Path | None
    places: Mapping[str, Path]

    @property
    def entry_name(self) -> str:
        """The entry's path relative to the slide."""
        return self.entry.name if self.folder is None else str(self.entry.relative_to(self.folder))


def shown_files(entry: Path, folder: Path | None) -> ShownFiles:
    """Lists a slide's files; no file is opened. Both paths are absolute.

    Links are followed: whoever arranged the folder made them, no upload can.
    """
    if folder is None:
        return ShownFiles(entry, None, {entry.name: Path(os.path.realpath(entry))} if _is_regular(entry) else {})
    places = {str(path.relative_to(folder)): Path(os.path.realpath(path)) for path in _files_below(folder)}
    return ShownFiles(entry, folder, places)


def _files_below(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        yield from (path for path in (Path(root, name) for name in names) if _is_regular(path))


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False
