"""Shuts a process up with the files of one slide: every layer that the platform grants, and what it refuses."""

import os
from dataclasses import dataclass
from pathlib import Path

from encoders.sandbox.call_filter import filter_calls
from encoders.sandbox.landlock import READ_DIR, READ_FILE, readable, restrict_files
from encoders.sandbox.layers import ALL_LAYERS, FILE_LAYERS, Layer
from encoders.sandbox.needed_paths import needed_paths
from encoders.sandbox.own_root import SLIDE_FOLDER, enter_own_root
from encoders.sandbox.shown_files import ShownFiles
from encoders.tiling.isolation.limit_process import NETWORK_LEFT, limit_process
from encoders.tiling.isolation.reader_limits import ReaderLimits

FILES_LEFT = "The reader may open files that are not the slide's."
CALLS_LEFT = "The reader may use sockets and signal other processes."


@dataclass(frozen=True)
class Confined:
    """`files` as they are named for this process now; the layers in force; a sentence for each limit not granted."""

    files: ShownFiles
    layers: frozenset[Layer]
    degraded: list[str]

    @property
    def sees_only_its_files(self) -> bool:
        """Whether a file that is not the slide's cannot even be named."""
        return "own_root" in self.layers

    @property
    def opens_only_its_files(self) -> bool:
        """Whether a file that is not the slide's cannot be opened."""
        return bool(self.layers & FILE_LAYERS)


def confine_process(
    files: ShownFiles, limits: ReaderLimits, parent_pid: int, layers: frozenset[Layer] = ALL_LAYERS
) -> Confined:
    """Limits this process for good, to `files` above all; `layers` are those to try.

    Must run while the process has one thread, before the parsers are loaded. Exits when the parent is gone.
    """
    needed = needed_paths(files.places.values())
    granted: set[Layer] = set()
    if "own_root" in layers and enter_own_root(needed, files.places):
        granted.add("own_root")
        files = _moved(files)
    degraded = limit_process(limits, parent_pid)
    rules = readable([Path("/")]) if "own_root" in granted else _rules(needed, files)
    if "landlock" in layers and restrict_files(rules):
        granted.add("landlock")
    if "call_filter" in layers and filter_calls():
        granted.add("call_filter")
        degraded = [sentence for sentence in degraded if sentence != NETWORK_LEFT]
    else:
        degraded.append(CALLS_LEFT)
    if not granted & FILE_LAYERS:
        degraded.append(FILES_LEFT)
    return Confined(files, frozenset(granted), degraded)


def _moved(files: ShownFiles) -> ShownFiles:
    places = {name: SLIDE_FOLDER / name for name in files.places}
    return ShownFiles(SLIDE_FOLDER / files.entry_name, SLIDE_FOLDER, places)


def _rules(needed: tuple[Path, ...], files: ShownFiles) -> dict[Path, int]:
    rules = readable(needed) | dict.fromkeys(files.places.values(), READ_FILE)
    if files.folder is not None:
        rules[files.folder] = READ_DIR
    elif _is_only_file(files.entry):
        rules[files.entry.parent] = READ_DIR  # DICOM is refused where its folder cannot be listed
    return rules


def _is_only_file(path: Path) -> bool:
    try:
        return os.listdir(path.parent) == [path.name]
    except OSError:
        return False
