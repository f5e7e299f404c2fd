"""The files that a slide is made of: one, or several that only make sense together (a DICOM series, MIRAX).

    one file        source/slide                              id = SHA-256 of its bytes
    several files   source/files/<sha256>, source/manifest.tsv  id = SHA-256 of the manifest's text

The manifest has one line `relative/path<TAB>size<TAB>sha256` per file, sorted by path. The names in it are metadata;
only in the private folder that a reader process is given do files bear them, because slides refer to their own parts.
"""

import asyncio
import hashlib
import shutil
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from encoders.errors import SlideError, UnreadableSlide, UnsupportedFormat
from encoders.tiling.dicom_head import SOP_CLASS, WHOLE_SLIDE, dicom_head
from encoders.tiling.foreign_files import alone, foreign_file
from encoders.tiling.repeated_levels import repeated_levels
from encoders.tiling.slide_kind import may_be_slide, name_to_open
from encoders.types import SlideFacts
from server.storage.slide_store import SlidePaths, SlideStore
from server.uploads.one_slide import SourceFile, require_one_slide
from server.uploads.slide_identity import manifest_text
from server.uploads.slide_inspection import SlideInspector

# Index files that name the others; any other slide is opened by whichever of its files OpenSlide takes.
INDEX_SUFFIXES = (".mrxs", ".vms", ".vmu")
# Each costs the start of a reader. Of a DICOM series any file opens the whole; MIRAX and Hamamatsu have one index.
_MAX_CANDIDATES = 4


@dataclass(frozen=True)
class LocalSource:
    """A slide on local disk: the path to open, and the folder that holds its files alone, None for a slide of one.

    `digests` are the SHA-256 of what was uploaded, for each of its files.
    """

    path: Path
    folder: Path | None = None
    digests: tuple[tuple[Path, str], ...] = ()

    def is_unchanged(self, stop: threading.Event) -> bool:
        """Whether its files are what was uploaded. Reads them all, 1 to 3 s of one core for each GB: call it in a
        thread. `stop` ends it early, with any answer."""
        return all(_sha256_of(path, stop) == sha256 for path, sha256 in self.digests)


@dataclass(frozen=True)
class Entry:
    """The file to open, None for a slide of one file, and what the slide says of itself."""

    relative_path: str | None
    facts: SlideFacts


async def find_entry(tenant: str, files: Sequence[SourceFile], folder: Path, inspector: SlideInspector) -> Entry:
    """Look inside the slide; with several files, find the one that opens it. `folder` is used and cleared.

    Raises:
        SlideError: none of them opens, or not all of them are one slide's.
    """
    if len(files) == 1:
        if reason := await asyncio.to_thread(why_no_slide, files[0].path, files[0].relative_path):
            raise UnsupportedFormat(reason)
        return Entry(None, await inspector.facts(tenant, files[0].path))
    left_out = await asyncio.to_thread(repeated_levels, {file.relative_path: file.path for file in files})
    read = [file for file in files if file.relative_path not in left_out]
    candidates = await asyncio.to_thread(_candidates, read)
    refusal: SlideError = UnsupportedFormat("None of the files opens as a slide; send all files of one slide.")
    with arranged({file.relative_path: file.path for file in read}, folder) as root:
        for relative_path in candidates:
            try:
                facts = await inspector.facts(tenant, root / name_to_open(relative_path), root)
                entry = Entry(relative_path, facts)
            except SlideError as error:
                refusal = error
                continue
            await asyncio.to_thread(require_one_slide, files, relative_path, entry.facts.vendor)
            return entry
    raise refusal


def why_no_slide(path: Path, name: str) -> str | None:
    """Why a file that comes alone, called `name`, is no slide; None when a reader should look at it. Raises OSError."""
    return alone(name) or (None if may_be_slide(path) else foreign_file(path))


async def publish_source(
    store: SlideStore, paths: SlidePaths, files: Sequence[SourceFile], *, replace: bool = False
) -> None:
    """Move staged files to the store; the manifest comes last, so that it never names what is not there."""
    for key, file in _places(paths, files):
        await store.publish_file(file.path, key, replace=replace)
    if len(files) > 1:
        await store.put(paths.source_manifest, manifest_text(files).encode())


async def source_digests(store: SlideStore, paths: SlidePaths) -> frozenset[str]:
    """The SHA-256 of each of a stored slide's files."""
    manifest = await store.get(paths.source_manifest)
    if manifest is None:
        return frozenset({paths.slide_id})
    return frozenset(sha256 for _, sha256 in _parsed(manifest))


async def source_is_whole(
    store: SlideStore, paths: SlidePaths, files: Sequence[SourceFile], *, by_digest: bool
) -> bool:
    """Whether the store has what these files, just received, say: by size, or byte for byte by their digests."""
    if len(files) > 1 and await store.get(paths.source_manifest) != manifest_text(files).encode():
        return False
    for key, file in _places(paths, files):
        if await store.size_bytes(key) != file.size_bytes:
            return False
        if by_digest and await _sha256(store, key) != file.sha256:
            return False
    return True


async def _sha256(store: SlideStore, key: str) -> str:
    digest = hashlib.sha256()
    async for chunk in store.stream(key):
        await asyncio.to_thread(digest.update, chunk)
    return digest.hexdigest()


def _places(paths: SlidePaths, files: Sequence[SourceFile]) -> list[tuple[str, SourceFile]]:
    """Where each file belongs in the store."""
    if len(files) == 1:
        return [(paths.source, files[0])]
    return [(paths.source_file(file.sha256), file) for file in files]


@asynccontextmanager
async def local_source(store: SlideStore, paths: SlidePaths, entry: str | None) -> AsyncIterator[LocalSource]:
    """What to open, on local disk, for as long as the block runs.

    Raises:
        FileNotFoundError: the slide was deleted.
        UnreadableSlide: the list of its files is not what was uploaded.
    """
    if entry is None:
        async with store.local_file(paths.source) as path:
            yield LocalSource(path, digests=((path, paths.slide_id),))
        return
    manifest = await store.get(paths.source_manifest)
    if manifest is None:
        raise FileNotFoundError("the slide has no manifest")
    if hashlib.sha256(manifest).hexdigest() != paths.slide_id:
        raise source_changed()
    folder = store.new_staging_path()
    await asyncio.to_thread(folder.mkdir)
    try:
        places = {path: await store.bring(paths.source_file(sha256), folder) for path, sha256 in _parsed(manifest)}
        digests = tuple((places[path], sha256) for path, sha256 in _parsed(manifest))
        for repeated in await asyncio.to_thread(repeated_levels, places):
            del places[repeated]
        with arranged(places, folder) as root:
            yield LocalSource(root / name_to_open(entry), root, digests)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


@contextmanager
def arranged(places: Mapping[str, Path], folder: Path) -> Iterator[Path]:
    """A tree of links that bear the files' own names, as `name_to_open` has them, under `folder`; gone afterwards."""
    root = folder / "tree"
    try:
        for relative_path, path in places.items():
            link = root / name_to_open(relative_path)
            if link.is_symlink():  # two that differ in capitals alone
                link = root / relative_path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def source_changed() -> UnreadableSlide:
    """What is said of a slide whose stored bytes are not those that were uploaded."""
    return UnreadableSlide("The stored file of this slide no longer matches the upload; upload the slide again.")


def _sha256_of(path: Path, stop: threading.Event) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while not stop.is_set() and (piece := file.read(2**20)):
            digest.update(piece)
    return digest.hexdigest()


def _candidates(files: Sequence[SourceFile]) -> list[str]:
    """What to try to open: what can be a slide by its first bytes; index files first, then the largest, which holds
    the slide's finest level. Other DICOM (segmentations, reports) comes last: it can be larger, and many files."""

    def promise(file: SourceFile) -> tuple[bool, bool, int, str]:
        is_index = file.relative_path.lower().endswith(INDEX_SUFFIXES)
        is_other = dicom_head(file.path).get(SOP_CLASS, WHOLE_SLIDE) != WHOLE_SLIDE
        return not is_index, is_other, -file.size_bytes, file.relative_path

    possible = (file for file in sorted(files, key=promise) if may_be_slide(file.path, file.relative_path))
    return [file.relative_path for file in islice(possible, _MAX_CANDIDATES)]


def _parsed(manifest: bytes) -> list[tuple[str, str]]:
    rows = [line.split("\t") for line in manifest.decode().split("\n") if line]
    return [(path, sha256) for path, _, sha256 in rows]
