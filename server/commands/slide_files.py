"""The files of a slide on this machine: one, an index with its folder (MIRAX), or a folder that is a slide (DICOM)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from server.commands.outcome import CommandError, ExitCode

_MIRAX = ".mrxs"
# What each stands for a slide of its own, so that several of them are several slides.
_WHOLE_SLIDES = frozenset({".svs", ".tif", ".tiff", ".ndpi", ".scn", ".bif", ".svslide", ".h5", ".pt"})
# What file managers leave in folders; and DICOM's list of a medium, which is no part of a slide.
LITTER = frozenset({"thumbs.db", "desktop.ini", "dicomdir"})
_MOST_FILES = 5_000


@dataclass(frozen=True)
class SlideFiles:
    """`files` by their names within the slide; `left_out` are names of what lies beside them and is not sent."""

    files: dict[str, Path]
    left_out: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """All of them together."""
        return sum(path.stat().st_size for path in self.files.values())


def slide_files(path: Path) -> SlideFiles:
    """What to send of a path that names a slide.

    Raises:
        CommandError: nothing there, or it cannot be one slide.
    """
    if path.is_dir():
        return _of_folder(path)
    require_file(path)
    return _of_mirax(path) if path.suffix.lower() == _MIRAX else SlideFiles({path.name: path})


def require_file(path: Path) -> None:
    """Refuses what cannot be a slide file before anything else is done.

    Raises:
        CommandError: nothing there, or not a regular file.
    """
    if not path.is_file():
        raise CommandError(f"{path} is not a file: name one slide file.", ExitCode.USAGE)


def _of_mirax(index: Path) -> SlideFiles:
    folder = index.with_suffix("")
    if not folder.is_dir():
        raise CommandError(f"{index} needs its folder {folder.name} beside it: bring both.", ExitCode.USAGE)
    inside, left_out = _below(folder)
    files = {f"{folder.name}/{name}": path for name, path in inside.items()}
    return SlideFiles({index.name: index, **files}, left_out)


def _of_folder(folder: Path) -> SlideFiles:
    beside = folder.parent / f"{folder.resolve().name}{_MIRAX}"
    if (folder / "Slidedat.ini").is_file() and beside.is_file():
        return _of_mirax(beside)
    indexes = sorted(path for path in folder.iterdir() if path.suffix.lower() == _MIRAX and path.is_file())
    if len(indexes) == 1 and indexes[0].with_suffix("").is_dir():
        slide = _of_mirax(indexes[0])
        others = [
            path.name for path in sorted(folder.iterdir()) if path not in (indexes[0], indexes[0].with_suffix(""))
        ]
        _refuse_several(folder, [name for name in others if Path(name).suffix.lower() in _WHOLE_SLIDES])
        return SlideFiles(slide.files, (*slide.left_out, *others))
    files, left_out = _below(folder)
    slides = [name for name in files if Path(name).suffix.lower() in {*_WHOLE_SLIDES, _MIRAX}]
    if len(files) > 1:
        _refuse_several(folder, slides)
    if not files:
        raise CommandError(f"{folder} holds no file of a slide.", ExitCode.USAGE)
    if len(files) > _MOST_FILES:
        raise CommandError(f"{folder} holds more than {_MOST_FILES} files, which is no slide.", ExitCode.USAGE)
    return SlideFiles(files, left_out)


def _refuse_several(folder: Path, slides: Sequence[str]) -> None:
    if slides:
        named = ", ".join(slides[:3]) + (" …" if len(slides) > 3 else "")
        raise CommandError(
            f"{folder} holds more than one slide, or other files beside one ({named}): name each by itself.",
            ExitCode.USAGE,
        )


def _below(folder: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Files by their paths in the folder, and the names of those that are no part of any slide."""
    files: dict[str, Path] = {}
    left_out: list[str] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file():
            continue
        if path.name.lower() in LITTER or any(step.startswith(".") for step in name.parts):
            left_out.append(str(name))
        else:
            files[name.as_posix()] = path
    return files, tuple(left_out)
