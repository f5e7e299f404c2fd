"""`eyepiece levels …`: a file of levels from the files that MLLM-HWSI's public code keeps of a slide, and back."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from encoders.errors import StoredFileDamaged
from encoders.hierarchical.levels_checks import UNKNOWN_SLIDE
from encoders.hierarchical.levels_file import read_levels, write_levels
from server.commands.outcome import CommandError, ExitCode
from server.commands.read_here import read_here
from server.commands.slide_files import require_file
from server.settings import Settings

if TYPE_CHECKING:
    from encoders.hierarchical.published_levels import PublishedSlide


@dataclass(frozen=True)
class ImportOptions:
    """What to read and what to write; the slide, or else its width and height at level 0. `stem` names the files, None
    as the slide is named; `region_px` is the side of a region in level-0 pixels."""

    folder: Path
    out: Path
    stem: str | None = None
    slide: Path | None = None
    width: int | None = None
    height: int | None = None
    region_px: int = 4096


def import_levels(settings: Settings, options: ImportOptions) -> None:
    """Writes the file of levels, or nothing.

    Raises:
        SlideError: the files cannot be levels of the slide, or it is none.
        CommandError: the options do not go together, or the file is there already or cannot be written.
    """
    from encoders.hierarchical.published_levels import read_published

    stem, out = _import_stem(options), options.out
    if out.exists():
        raise CommandError(f"{out} is there already: name a new file.", ExitCode.USAGE)
    levels = read_published(options.folder, stem, _slide_of(settings, options))
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_levels(temporary, levels)
        temporary.replace(out)
    except ValueError as error:
        raise CommandError(f"The files make no file of levels ({error}): make them again.", ExitCode.FAILED) from error
    except OSError as error:
        raise _unwritable(out, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    regions, k = levels.patch_index.shape
    print(f"{out}: {regions} regions of {k} patches; which cells there were is not known; next: eyepiece upload {out}")


def export_levels(path: Path, folder: Path, stem: str | None) -> None:
    """Writes all of the files, or none.

    Raises:
        CommandError: the file is none of levels, its slide has no id, or one of the files is there already or cannot be
            written.
    """
    from encoders.hierarchical.published_levels import PUBLISHED_REGION_PX, published_paths, write_published

    require_file(path)
    try:
        levels = read_levels(path)
    except StoredFileDamaged as error:
        raise CommandError(
            f"{path} is no file of levels, or it is damaged; download the features of a model of levels again.",
            ExitCode.FAILED,
        ) from error
    if stem is None and levels.slide_id == UNKNOWN_SLIDE:
        raise CommandError("The file does not say which slide it is of: name the files with --id.", ExitCode.USAGE)
    stem = _plain_stem(levels.slide_id if stem is None else stem)
    paths = published_paths(folder, stem).values()
    if taken := next((file for file in paths if file.exists()), None):
        raise CommandError(f"{taken} is there already: name another folder or another --id.", ExitCode.USAGE)
    try:
        write_published(levels, folder, stem)
    except OSError as error:
        raise _unwritable(folder, error) from error
    regions, k = levels.patch_index.shape
    print(f"{folder}: {regions} regions of {k} patches under the id {stem}; single cells have no place in these files")
    if levels.region_px != PUBLISHED_REGION_PX:
        print(f"A region measures {levels.region_px} px, which they do not say either: --region-px {levels.region_px}")


def _import_stem(options: ImportOptions) -> str:
    """Refuses options that do not go together."""
    has_size = None not in (options.width, options.height)
    if (options.slide is not None) == has_size or (options.width is None) != (options.height is None):
        raise CommandError("Give either --slide, or both --width and --height.", ExitCode.USAGE)
    if options.region_px % 256:
        raise CommandError("--region-px is a multiple of 256, the side of a patch.", ExitCode.USAGE)
    if options.slide is not None:
        require_file(options.slide)
    if options.stem is None and options.slide is None:
        raise CommandError("Say what the files are named by with --id.", ExitCode.USAGE)
    return _plain_stem(options.slide.stem if options.slide and options.stem is None else options.stem or "")


def _plain_stem(stem: str) -> str:
    """Refuses what would lead out of the folder."""
    if stem in ("", ".", "..") or "\0" in stem or stem != Path(stem).name:
        raise CommandError("--id is a name without `/`, as of the files in patches_filtered.", ExitCode.USAGE)
    return stem


def _slide_of(settings: Settings, options: ImportOptions) -> "PublishedSlide":
    from encoders.hierarchical.published_levels import PublishedSlide

    if options.slide is None:
        assert options.width is not None
        assert options.height is not None
        return PublishedSlide(options.width, options.height, region_px=options.region_px)
    with read_here(options.slide, settings) as (source, reader):
        facts = reader.facts()
    # Of several files, the id is that of an upload, which nobody has seen here.
    slide_id = _sha256(options.slide) if source.folder is None else UNKNOWN_SLIDE
    return PublishedSlide(facts.width, facts.height, slide_id, options.region_px)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unwritable(path: Path, error: OSError) -> CommandError:
    return CommandError(f"{path} cannot be written: {error.strerror or type(error).__name__}.", ExitCode.FAILED)
