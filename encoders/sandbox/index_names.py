"""Names that a slide's index file gives to others: checked before OpenSlide follows them.

For processes without a root of their own. What the source of OpenSlide (tag v4.0.1) opens beside the file it is given:

    MIRAX       <name>/Slidedat.ini: INDEXFILE, FILE_0 …
    Hamamatsu   .vms, .vmu: ImageFile, ImageFile(x,y), MapFile, MacroImage, OptimisationFile
    DICOM       every file in the folder; those of the same series are read
    Trestle     <name>.Full
    Sakura      <name>-journal, <name>-wal (SQLite's)

All others (Aperio, Argos, Huron, Leica, NDPI, Philips, Ventana, Zeiss, generic TIFF) read the one file.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from encoders.errors import UnreadableSlide
from encoders.sandbox.shown_files import ShownFiles

# OpenSlide reads no Slidedat.ini that is larger, and no .vms or .vmu beyond _HEAD_BYTES.
_MAX_INDEX_BYTES = 2**20
_HEAD_BYTES = 65_536
_HAMAMATSU = re.compile(rb"\[[^\]\n]*Virtual Microscope Specimen[^\]\n]*\]")
# GLib ends a line at \n alone. In a Slidedat.ini OpenSlide first blanks keys without a name up to the next \r or \n: a
# key need not stand at the beginning of its line.
_MIRAX_KEYS = re.compile(rb"(?:INDEXFILE|FILE_\d)[^=]*=(.*)", re.DOTALL)
_HAMAMATSU_KEYS = re.compile(rb"(?:ImageFile|MapFile|MacroImage|OptimisationFile)[^=]*=(.*)", re.DOTALL)
_DICOM_MAGIC, _DICOM_MAGIC_AT = b"DICM", 128


def require_names_inside(files: ShownFiles, *, is_confined: bool) -> None:
    """Raises UnreadableSlide when the slide's index names what is not a plain name in the index's own folder.

    With `is_confined` the kernel refuses to open what is not the slide's, and this only makes sure that a name which
    leads away is answered alike whether its file exists or not. Without, the slide must also be alone in its folder,
    and name nothing that it has not brought along.
    """
    for index, keys in _indexes(files):
        folder = PurePosixPath(index).parent
        for name in _names(files.places[index], keys):
            is_plain = b"/" not in name and b"\x00" not in name and name not in (b".", b"..")
            is_ours = is_confined or str(folder / name.decode(errors="surrogateescape")) in files.places
            if not (is_plain and is_ours):
                raise _refusal()
    if not is_confined and not _is_alone(files):
        raise _refusal()


def _indexes(files: ShownFiles) -> Iterator[tuple[str, re.Pattern[bytes]]]:
    entry = files.entry_name
    if entry not in files.places:
        return
    slidedat = str(PurePosixPath(entry.removesuffix(".mrxs")) / "Slidedat.ini")  # of ".mrxs", the one beside it
    if slidedat in files.places:
        yield slidedat, _MIRAX_KEYS
    if _HAMAMATSU.search(_head(files.places[entry])):
        yield entry, _HAMAMATSU_KEYS


def _names(index: Path, keys: re.Pattern[bytes]) -> Iterator[bytes]:
    with index.open("rb") as file:
        lines = file.read(_MAX_INDEX_BYTES).split(b"\n")
    for line in lines:
        # GLib's strings end at a zero byte: what follows one in a key does not count, in a value nothing honest does.
        found = keys.search(line)
        if found and not line.lstrip().startswith(b"#") and (value := found[1].strip()):
            yield value


def _is_alone(files: ShownFiles) -> bool:
    """Whether no file lies where OpenSlide would look for more of this slide, but those that are the slide's."""
    entry, folder = files.entry, files.entry.parent
    if files.entry_name not in files.places:
        return True  # there is nothing to open
    if _head(entry)[_DICOM_MAGIC_AT:].startswith(_DICOM_MAGIC):
        beside = {path for path in folder.iterdir()}
    else:
        beside = {entry.with_suffix(".Full"), *(Path(f"{entry}{end}") for end in ("-journal", "-wal", "-shm"))}
        beside = {path for path in beside if path.is_symlink() or path.exists()}
    base = files.folder or folder
    return all(str(path.relative_to(base)) in files.places or path.is_dir() for path in beside)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _refusal() -> UnreadableSlide:
    return UnreadableSlide(
        "The slide refers to files that are not part of it; upload all files that the scanner wrote, together."
    )
