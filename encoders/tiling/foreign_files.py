"""What a file is that is no slide which can be read here, by its first bytes and the end of its name, and what to send
instead. Parses nothing."""

import re
from pathlib import Path, PurePosixPath

_HEAD_BYTES = 4_096
_ORIGINAL = "send the scanner's original file"
_UNPACK = "unpack it and send the slide's own files"
_FEATURES = "send HDF5 with `features` and `coords`, or what torch.save writes since 1.6"
_EXPORT = "export the slide as DICOM, SVS or tiled TIFF"

_ZIP = b"PK\x03\x04"
_NUMPY_IN_ZIP = re.compile(rb"[^/\x00]{1,255}\.npy")
# (where, first bytes, what it is, what to do). The more special come first.
_KINDS: tuple[tuple[int, bytes, str, str], ...] = (
    (
        0,
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
        "a features file that torch.save wrote before version 1.6",
        _FEATURES,
    ),
    (0, b"\x93NUMPY", "a NumPy array (.npy)", _FEATURES),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", "send a slide, or HDF5 with `features` and `coords`"),
    (0, b"PAR1", "a Parquet table", _FEATURES),
    (0, b"MATLAB 5.0 MAT-file", "a MATLAB file", _FEATURES),
    (0, _ZIP, "a ZIP archive", _UNPACK),
    (0, b"PK\x05\x06", "an empty ZIP archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    (0, b"BZh", "a bzip2 archive", _UNPACK),
    (0, b"\xfd7zXZ\x00", "an xz archive", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACK),
    (0, b"Salted__", "an encrypted file", "decrypt it, then send the slide"),
    (0, b"age-encryption.org", "an encrypted file", "decrypt it, then send the slide"),
    (0, b"-----BEGIN PGP", "an encrypted file", "decrypt it, then send the slide"),
    (0, b"%PDF-", "a PDF document", _ORIGINAL),
    (0, b"\xff\xd8\xff", "a plain JPEG picture, without levels and resolution", _ORIGINAL),
    (0, b"\x89PNG\r\n\x1a\n", "a plain PNG picture, without levels and resolution", _ORIGINAL),
    (0, b"GIF8", "a plain GIF picture, without levels and resolution", _ORIGINAL),
    (0, b"BM", "a plain BMP picture, without levels and resolution", _ORIGINAL),
    (8, b"WEBP", "a plain WebP picture, without levels and resolution", _ORIGINAL),
    (4, b"jP  \r\n\x87\n", "a plain JPEG 2000 picture, without levels and resolution", _ORIGINAL),
    (0, b"\xff\x4f\xff\x51", "a plain JPEG 2000 picture, without levels and resolution", _ORIGINAL),
    (0, b"\xda\xce\xbe\x0a", "a Nikon ND2 file", _EXPORT),
    (0, b"\x70\x00\x00\x00", "a Leica LIF file", _EXPORT),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a file of Microsoft's compound format", _EXPORT),
    (0, b"SIS\x00", "one part of an Olympus VSI slide", _EXPORT),
    (0, b"<DataObject", "a Philips iSyntax file", _EXPORT),
)
_PICKLES = re.compile(rb"\x80[\x02-\x05]")
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]+")
# By the end of the name, for indexes that are worth nothing without what lies beside them.
_ALONE = {
    ".mrxs": "This is the index of a MIRAX slide without its data. Send it in one form with all files of the folder of "
    "the same name, as <name>/Slidedat.ini and so on.",
    ".vms": "This is the index of a Hamamatsu slide without its pictures. Send it in one form with all files that it "
    "names.",
    ".vmu": "This is the index of a Hamamatsu slide without its pictures. Send it in one form with all files that it "
    "names.",
    ".vsi": "This is the index of an Olympus VSI slide; its pixels lie in the folder _<name>_ beside it, in a format "
    "that is not read here. Export the slide as DICOM, SVS or tiled TIFF and send that.",
    ".ets": "This is one part of an Olympus VSI slide, which is not read here. Export the slide as DICOM, SVS or tiled "
    "TIFF and send that.",
    ".isyntax": "This is a Philips iSyntax file, which is not read here. Export the slide as DICOM, SVS or tiled TIFF "
    "and send that.",
}
_PARTS_OF_MIRAX = re.compile(r"(?:data\d{4}|index)\.dat|slidedat\.ini")
NO_SLIDE = "This is not a whole-slide image that can be read here; upload the scanner's original file."


def alone(name: str) -> str | None:
    """Why a file of this name is no slide when it comes alone; None when the name does not say."""
    lower = PurePosixPath(name).name.lower()
    if _PARTS_OF_MIRAX.fullmatch(lower):
        return "This is one part of a MIRAX slide. Send its .mrxs and all files of the folder of that name in one form."
    return _ALONE.get(PurePosixPath(lower).suffix)


def foreign_file(path: Path) -> str:
    """What a file is that is not read as a slide, and what to send instead; raises OSError."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(_ZIP) and _NUMPY_IN_ZIP.match(head, 30):
        return _sentence("a NumPy archive (.npz)", _FEATURES)
    for where, magic, what, advice in _KINDS:
        if head.startswith(magic, where):
            return _sentence(what, advice)
    if _PICKLES.match(head):
        return _sentence("a Python pickle", _FEATURES)
    if _TEXT.fullmatch(head):
        is_table = b"," in head.split(b"\n", 1)[0] or b"\t" in head.split(b"\n", 1)[0]
        return _sentence("a table of text (CSV)", _FEATURES) if is_table else _sentence("a text", _ORIGINAL)
    return NO_SLIDE


def _sentence(what: str, advice: str) -> str:
    return f"This is {what}; it cannot be read here, as a slide or as features. {advice[0].upper()}{advice[1:]}."
