"""The file SHA256SUMS of an installed model: one line `<hex>  <relative path>` per file, sorted by path.

`sha256sum -c SHA256SUMS` accepts it, so a model can be checked on a machine without Eyepiece.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from model_store.errors import ModelError

SUMS_FILE = "SHA256SUMS"
# A digest, two spaces (text mode of sha256sum), a relative path without a backslash or a line break.
_LINE = re.compile(r"([0-9a-f]{64})  ([^\\\r\n]+)")


def write_sums(folder: Path) -> None:
    """Hashes every file of the folder except SHA256SUMS itself, then writes that."""
    write_digests(folder, {path: file_digest(folder / path) for path in listed_files(folder)})


def write_digests(folder: Path, digests: Mapping[str, str]) -> None:
    """Writes SHA256SUMS with these digests, in place of an earlier one and at once."""
    lines = [f"{digest}  {path}\n" for path, digest in sorted(digests.items())]
    beside = folder / f"{SUMS_FILE}.new"
    beside.write_text("".join(lines), encoding="utf-8")
    beside.replace(folder / SUMS_FILE)


def read_sums(folder: Path) -> Mapping[str, str]:
    """Digest by relative POSIX path; raises ModelError when the file is absent or a line is malformed."""
    try:
        lines = (folder / SUMS_FILE).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError("The model has no readable SHA256SUMS; install the model again.") from error
    return dict(_entry(number, line) for number, line in enumerate(lines, start=1))


def listed_files(folder: Path) -> list[str]:
    """Relative POSIX paths of all files below the folder except SHA256SUMS, sorted."""
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in files if path != SUMS_FILE)


def file_digest(path: Path) -> str:
    """Lower-case hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entry(number: int, line: str) -> tuple[str, str]:
    match = _LINE.fullmatch(line)
    if match is None or _leaves_the_folder(match[2]):
        raise ModelError(f"Line {number} of the model's SHA256SUMS is malformed; install the model again.")
    return match[2], match[1]


def _leaves_the_folder(path: str) -> bool:
    parts = PurePosixPath(path)
    return parts.is_absolute() or ".." in parts.parts
