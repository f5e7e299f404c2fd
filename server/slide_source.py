"""The files that a slide is made of: one, or several that only make sense together (a DICOM series, MIRAX).

    one file        source/slide                              id = SHA-256 of its bytes
    several files   source/files/<sha256>, source/manifest.tsv  id = SHA-256 of the manifest's text

The manifest has one line `relative/path<TAB>size<TAB>sha256` per file, sorted by path. The names in it are metadata;
only in the private folder that a reader process is given do files bear them, because slides refer to their own parts.
"""

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from encoders.errors import SlideError, UnsupportedFormat
from encoders.types import SlideFacts
from server.slide_inspection import SlideInspector
from server.slide_store import SlidePaths, SlideStore

# Index files that name the others; any other slide is opened by whichever of its files OpenSlide takes.
_INDEX_SUFFIXES = (".mrxs", ".vms", ".vmu")
# A DICOM series lists its levels, label and overview; one of the first few opens, or none does.
_MAX_ENTRIES_TRIED = 20


@dataclass(frozen=True)
class SourceFile:
    """One file: where it is now, and what the manifest says of it. `relative_path` can be PHI."""

    path: Path
    relative_path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """The file to open, None for a slide of one file, and what the slide says of itself."""

    relative_path: str | None
    facts: SlideFacts


def manifest_text(files: Sequence[SourceFile]) -> str:
    """The manifest of several files."""
    ordered = sorted(files, key=lambda file: file.relative_path)
    return "".join(f"{file.relative_path}\t{file.size_bytes}\t{file.sha256}\n" for file in ordered)


def slide_id_of(files: Sequence[SourceFile]) -> str:
    """The identity of a slide: of its bytes, or of its manifest."""
    if len(files) == 1:
        return files[0].sha256
    return hashlib.sha256(manifest_text(files).encode()).hexdigest()


async def find_entry(files: Sequence[SourceFile], folder: Path, inspector: SlideInspector) -> Entry:
    """Look inside the slide; with several files, find the one that opens it. `folder` is used and cleared.

    Raises:
        SlideError: none of them opens.
    """
    if len(files) == 1:
        return Entry(None, await inspector.facts(files[0].path))
    refusal: SlideError = UnsupportedFormat("None of the files opens as a slide; send all files of one slide.")
    with arranged({file.relative_path: file.path for file in files}, folder) as root:
        for relative_path in _entries(files):
            try:
                return Entry(relative_path, await inspector.facts(root / relative_path))
            except SlideError as error:
                refusal = error
    raise refusal


async def publish_source(store: SlideStore, paths: SlidePaths, files: Sequence[SourceFile]) -> None:
    """Move staged files to the store; the manifest comes last, so that it never names what is not there."""
    if len(files) == 1:
        await store.publish_file(files[0].path, paths.source)
        return
    for file in files:
        await store.publish_file(file.path, paths.source_file(file.sha256))
    await store.put(paths.source_manifest, manifest_text(files).encode())


@asynccontextmanager
async def local_source(store: SlideStore, paths: SlidePaths, entry: str | None) -> AsyncIterator[Path]:
    """The path to open, on local disk, for as long as the block runs.

    Raises:
        FileNotFoundError: the slide was deleted.
    """
    if entry is None:
        async with store.local_file(paths.source) as path:
            yield path
        return
    manifest = await store.get(paths.source_manifest)
    if manifest is None:
        raise FileNotFoundError("the slide has no manifest")
    folder = store.new_staging_path()
    await asyncio.to_thread(folder.mkdir)
    try:
        places = {path: await store.bring(paths.source_file(sha256), folder) for path, sha256 in _parsed(manifest)}
        with arranged(places, folder) as root:
            yield root / entry
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


@contextmanager
def arranged(places: Mapping[str, Path], folder: Path) -> Iterator[Path]:
    """A tree of links that bear the files' own names, under `folder`; gone afterwards."""
    root = folder / "tree"
    try:
        for relative_path, path in places.items():
            link = root / relative_path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _entries(files: Sequence[SourceFile]) -> list[str]:
    """What to try to open, most promising first: index files, then those nearest to the top."""

    def promise(path: str) -> tuple[bool, int, str]:
        return not path.lower().endswith(_INDEX_SUFFIXES), len(PurePosixPath(path).parts), path

    return sorted((file.relative_path for file in files), key=promise)[:_MAX_ENTRIES_TRIED]


def _parsed(manifest: bytes) -> list[tuple[str, str]]:
    rows = [line.split("\t") for line in manifest.decode().splitlines()]
    return [(path, sha256) for path, _, sha256 in rows]
