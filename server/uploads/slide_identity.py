"""The identity of a slide: of its bytes, or of the manifest of its files. Pure, so that clients can tell it as well."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


class Listed(Protocol):
    """A file as a manifest lists it."""

    @property
    def relative_path(self) -> str:
        """Within the slide, with slashes."""

    @property
    def size_bytes(self) -> int:
        """Of its content."""

    @property
    def sha256(self) -> str:
        """Of its content, in hex."""


@dataclass(frozen=True)
class ListedFile:
    """One that is not uploaded."""

    relative_path: str
    size_bytes: int
    sha256: str


def manifest_text(files: Iterable[Listed]) -> str:
    """The manifest of several files: `relative/path<TAB>size<TAB>sha256`, sorted by path."""
    ordered = sorted(files, key=lambda file: file.relative_path)
    return "".join(f"{file.relative_path}\t{file.size_bytes}\t{file.sha256}\n" for file in ordered)


def slide_id_of(files: Iterable[Listed]) -> str:
    """SHA-256 of a single file's bytes, or of the manifest."""
    listed = list(files)
    if len(listed) == 1:
        return listed[0].sha256
    return hashlib.sha256(manifest_text(listed).encode()).hexdigest()
