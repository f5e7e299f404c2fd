"""The files of the page, read once, as a server sends them."""

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "page"
# All kinds of files that the page is made of; a file of another kind is a mistake.
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True)
class PageFile:
    """A file of the page; `digest` is the SHA-256 of `content`, in hex, shortened."""

    content: bytes
    gzipped: bytes
    media_type: str
    digest: str


@cache
def read_page() -> Mapping[str, PageFile]:
    """Every file of the page, by its path within it; `index.html` is the page itself. Read once in a process: they are
    part of the package."""
    files = sorted(path for path in _FOLDER.rglob("*") if path.is_file())
    return {path.relative_to(_FOLDER).as_posix(): _read(path) for path in files}


def _read(path: Path) -> PageFile:
    content = path.read_bytes()
    # Without a time: equal files are equal on every replica.
    return PageFile(
        content=content,
        gzipped=gzip.compress(content, mtime=0),
        media_type=_MEDIA_TYPES[path.suffix],
        digest=hashlib.sha256(content).hexdigest()[:32],
    )
