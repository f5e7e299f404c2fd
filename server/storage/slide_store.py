"""The slide store: the truth about slides and embeddings, in a local folder or an object store.

    tenants/<tenant>/slides/<slide id>/{source/…, slide.json, given_features/<sha256>, features/<encoder id>.h5,
                                        embeddings/<encoder id>.safetensors,
                                        regions/<region id>.{json,safetensors},
                                        evidence/<evidence id>.{json,<n>.safetensors},
                                        reports/{last,<number>}.json,
                                        feedback/<conversation id>/<turn>.json,
                                        dicom/{series.json, <sha256 of an instance>.{json,frames}},
                                        parts/<encoder id>/<first tile>-<count>.safetensors, while it is encoded}
    tenants/<tenant>/metadata-key and index/described/<tenant>/… (`server.slides.metadata_index`)
    tenants/<tenant>/series/<sha256 of a DICOM series uid>  (`server.slides.series_index`)
    tenants/<tenant>/uploads/<slide in the making>/{outcome.json, <file>/{upload.json, data}}
    index/{all,pending,failed}/<tenant>/<time and slide id> and index/state/<tenant>.json (`server.slides.slide_index`)
    index/feedback/<tenant>/<time, slide id and turn>
    keys/<sha256 of an API key>.json

Every object appears whole or not at all. File names never reach a path: they can be PHI.
"""

import asyncio
import errno
import hashlib
import io
import re
import shutil
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore, from_url

from server.errors import InvalidRequest
from server.settings import Settings
from server.storage.growing_objects import BucketObject, GrowingFile, GrowingObject
from server.storage.local_folder import (
    files_after,
    folders_after,
    inside,
    link,
    local_root,
    newest_change,
    remove_empty_parents,
    remove_remains,
    sizes_in,
)
from server.storage.store_errors import translated

# Far longer than any upload or encode goes without touching its files.
ABANDONED_AFTER_S = 86_400.0
TENANT_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
SLIDE_ID_PATTERN = re.compile(r"[0-9a-f]{64}")
# As many keys as a bucket gives at once.
_LIST_PAGE = 1000
_FOLDERS_AT_ONCE = 256
# As large as a chunk of a features file.
_READ_AHEAD_BYTES = 2**20


def require_tenant_name(tenant: str) -> str:
    """The name itself, if it can be part of a path and a key.

    Raises:
        InvalidRequest: it cannot.
    """
    if not TENANT_PATTERN.fullmatch(tenant):
        raise InvalidRequest("A tenant is 1–63 lower-case letters, digits and hyphens.")
    return tenant


@dataclass(frozen=True)
class SlidePaths:
    """Where the objects of one tenant's slide are."""

    tenant: str
    slide_id: str

    @property
    def folder(self) -> str:
        """The prefix of everything of this slide."""
        return f"{slides_folder(self.tenant)}/{self.slide_id}"

    @property
    def source(self) -> str:
        """The uploaded bytes."""
        return f"{self.folder}/source/slide"

    @property
    def source_manifest(self) -> str:
        """Of a slide of several files: which they are."""
        return f"{self.folder}/source/manifest.tsv"

    def source_file(self, sha256: str) -> str:
        """One of several files, under its content."""
        return f"{self.folder}/source/files/{sha256}"

    def given_features(self, sha256: str) -> str:
        """Features that were attached to the slide, as they came."""
        return f"{self.folder}/given_features/{sha256}"

    @property
    def record(self) -> str:
        """The slide's record as JSON."""
        return f"{self.folder}/slide.json"

    def features(self, encoder_id: str) -> str:
        """The HDF5 file of tile features."""
        return f"{self.folder}/features/{encoder_id}.h5"

    def embedding(self, encoder_id: str) -> str:
        """The safetensors file that answers are made from."""
        return f"{self.folder}/embeddings/{encoder_id}.safetensors"

    @property
    def dicom_series(self) -> str:
        """Of a slide that is a DICOM series: its instances as JSON."""
        return f"{self.folder}/dicom/series.json"

    def dicom_metadata(self, sha256: str) -> str:
        """The header of one of its instances in DICOM JSON."""
        return f"{self.folder}/dicom/{sha256}.json"

    def dicom_frames(self, sha256: str) -> str:
        """Where the frames of one of its instances lie: int64 little-endian, offset and byte count of each."""
        return f"{self.folder}/dicom/{sha256}.frames"

    @property
    def regions(self) -> str:
        """The prefix of the regions that were drawn on the slide."""
        return f"{self.folder}/regions"

    def region(self, region_id: str) -> str:
        """A region's record as JSON."""
        return f"{self.regions}/{region_id}.json"

    def region_embedding(self, region_id: str) -> str:
        """The safetensors file that answers about the region are made from."""
        return f"{self.regions}/{region_id}.safetensors"

    @property
    def evidence(self) -> str:
        """The prefix of the rows that the slide has without some of its tiles."""
        return f"{self.folder}/evidence"

    def evidence_part(self, evidence_id: str, number: int) -> str:
        """Some of them, in a safetensors file."""
        return f"{self.evidence}/{evidence_id}.{number}.safetensors"

    @property
    def reports(self) -> str:
        """The prefix of reports about the slide."""
        return f"{self.folder}/reports"

    @property
    def feedback(self) -> str:
        """The prefix of what people thought of answers about the slide."""
        return f"{self.folder}/feedback"

    @property
    def all_parts(self) -> str:
        """The prefix of what unfinished encodes have got so far."""
        return f"{self.folder}/parts"

    def parts(self, encoder_id: str) -> str:
        """The prefix of one encoder's parts (`encoders.feature_parts`)."""
        return f"{self.all_parts}/{encoder_id}"


def slides_folder(tenant: str) -> str:
    """The prefix of all slides of a tenant."""
    return f"tenants/{require_tenant_name(tenant)}/slides"


def series_folder(tenant: str) -> str:
    """The prefix of what says which slide a DICOM series is."""
    return f"tenants/{require_tenant_name(tenant)}/series"


def uploads_folder(tenant: str) -> str:
    """The prefix of all resumable uploads of a tenant."""
    return f"tenants/{require_tenant_name(tenant)}/uploads"


@dataclass(frozen=True)
class StoredObject:
    """`version` changes whenever the object is written anew."""

    size_bytes: int
    version: str


class SlideStore:
    """Objects by key. A local folder is read in place; a remote store goes through `scratch_dir`."""

    def __init__(self, url: str, scratch_dir: Path) -> None:
        self.local_root = local_root(url)
        # Inside a local store, so that publishing is a link and never a copy across file systems.
        self.staging_dir = (self.local_root or scratch_dir.resolve()) / "staging"
        self.staging_dir.mkdir(parents=True, exist_ok=True)
        self._objects: Any = LocalStore(self.local_root) if self.local_root else from_url(url)

    def new_staging_path(self) -> Path:
        """A path nobody else uses, for a file that is not published yet."""
        return self.staging_dir / uuid.uuid4().hex

    def remove_abandoned(self, older_than_s: float = ABANDONED_AFTER_S) -> int:
        """Remove what killed processes left in the staging folder; how many entries. Blocks: call it in a thread."""
        limit = time.time() - older_than_s
        abandoned = [entry for entry in self.staging_dir.iterdir() if newest_change(entry) < limit]
        for entry in abandoned:
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
        return len(abandoned)

    def free_bytes(self) -> int | None:
        """Room on the disk of a local store; None for a bucket."""
        return None if self.local_root is None else shutil.disk_usage(self.staging_dir).free

    async def get(self, key: str) -> bytes | None:
        """The object's bytes, or None when there is none."""
        with translated():
            try:
                result = await obstore.get_async(self._objects, key)
            except FileNotFoundError:
                return None
            return bytes(await result.bytes_async())

    async def exists(self, key: str) -> bool:
        """Whether the object is there."""
        with translated():
            try:
                await obstore.head_async(self._objects, key)
            except FileNotFoundError:
                return False
            return True

    async def put(self, key: str, content: bytes) -> None:
        """Write or replace an object atomically."""
        with translated():
            await obstore.put_async(self._objects, key, content)

    async def create(self, key: str, content: bytes) -> bool:
        """Write an object unless it exists; False when somebody was first."""
        with translated():
            try:
                await obstore.put_async(self._objects, key, content, mode="create")
            except AlreadyExistsError:
                return False
            return True

    async def publish_file(self, path: Path, key: str, *, replace: bool = False) -> bool:
        """Move a staged file to `key`, unless the object exists and shall not be replaced; the staged file is gone
        afterwards."""
        try:
            with translated():
                if self.local_root is not None:
                    return link(path, inside(self.local_root, key), replace)
                if not replace and await self.exists(key):
                    return False
                # Not create-if-absent: parts cannot be (S3 caps a single PUT at 5 GB), and the key names
                # the content, so the loser of a race writes the same bytes.
                await obstore.put_async(self._objects, key, path)
                return True
        finally:
            path.unlink(missing_ok=True)

    def growing(self, key: str) -> GrowingObject:
        """An object that is made of what comes, bit by bit."""
        if self.local_root is not None:
            return GrowingFile(inside(self.local_root, key))
        return BucketObject(self._objects, key)

    async def delete_folder(self, prefix: str) -> int:
        """Delete every object under `prefix`; how many there were."""
        with translated():
            count = 0
            async for batch in obstore.list(self._objects, prefix):
                for entry in batch:
                    with suppress(FileNotFoundError):  # somebody else deletes it too
                        await obstore.delete_async(self._objects, entry["path"])
                        count += 1
        if self.local_root is not None:
            remove_remains(self.local_root / prefix)
        return count

    async def stored_bytes(self, prefix: str) -> int:
        """The size of all objects under `prefix`."""
        with translated():
            return sum([int(entry["size"]) async for batch in obstore.list(self._objects, prefix) for entry in batch])

    async def delete(self, key: str) -> bool:
        """Delete one object; False when there was none."""
        if not await self.exists(key):
            return False
        with translated():
            try:
                await obstore.delete_async(self._objects, key)
            except FileNotFoundError:  # somebody else was first
                return False
        return True

    async def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly under `prefix`, sorted."""
        with translated():
            listing = await obstore.list_with_delimiter_async(self._objects, prefix)
        return sorted(str(path).rsplit("/", 1)[-1] for path in listing["common_prefixes"])

    async def objects(self, prefix: str) -> list[str]:
        """Names of the objects directly under `prefix`, sorted."""
        with translated():
            listing = await obstore.list_with_delimiter_async(self._objects, prefix)
        return sorted(str(entry["path"]).rsplit("/", 1)[-1] for entry in listing["objects"])

    async def keys_after(self, prefix: str, after: str, most: int) -> list[str]:
        """Up to `most` keys under `prefix`, without it, in order, behind `after` ("" for the first). It costs what it
        returns: a page of a bucket's listing, or the local folders on the way, of which none should be large."""
        with translated():
            if self.local_root is not None:
                return await asyncio.to_thread(files_after, self.local_root / prefix, after, most)
            found: list[str] = []
            offset = f"{prefix}/{after}" if after else None
            async for batch in obstore.list(self._objects, prefix, offset=offset, chunk_size=min(most, _LIST_PAGE)):
                found += [str(entry["path"]).removeprefix(f"{prefix}/") for entry in batch]
                if len(found) >= most:
                    break
        return found[:most]

    async def folders_with_objects(self, prefix: str, after: str) -> AsyncIterator[tuple[str, dict[str, int]]]:
        """The folders under `prefix` in order of their names, behind `after`, each with the sizes in bytes of its
        objects by their names. Nothing is read: a bucket gives 1,000 objects a request."""
        with translated():
            if self.local_root is not None:
                folder = self.local_root / prefix
                names = await asyncio.to_thread(folders_after, folder, after)
                for start in range(0, len(names), _FOLDERS_AT_ONCE):
                    for found in await asyncio.to_thread(sizes_in, folder, names[start : start + _FOLDERS_AT_ONCE]):
                        yield found
                return
            name, sizes = "", dict[str, int]()
            # The character behind the slash: everything of that folder lies before it.
            offset = f"{prefix}/{after}0" if after else None
            async for batch in obstore.list(self._objects, prefix, offset=offset, chunk_size=_LIST_PAGE):
                for entry in batch:
                    folder_name, _, object_name = str(entry["path"]).removeprefix(f"{prefix}/").partition("/")
                    if folder_name != name:
                        if name:
                            yield name, sizes
                        name, sizes = folder_name, {}
                    sizes[object_name] = int(entry["size"])
            if name:
                yield name, sizes

    async def discard(self, key: str) -> None:
        """Delete one object if there is one, and of a local store the folders that are empty then."""
        with translated(), suppress(FileNotFoundError):
            await obstore.delete_async(self._objects, key)
        if self.local_root is not None:
            await asyncio.to_thread(remove_empty_parents, self.local_root, inside(self.local_root, key))

    async def size_bytes(self, key: str) -> int | None:
        """The object's size, None when there is none."""
        with translated():
            try:
                return int((await obstore.head_async(self._objects, key))["size"])
            except FileNotFoundError:
                return None

    async def describe(self, key: str) -> StoredObject | None:
        """Size and version, None when there is no such object."""
        with translated():
            try:
                found = await obstore.head_async(self._objects, key)
            except FileNotFoundError:
                return None
            version = found.get("e_tag") or f"{found['last_modified'].timestamp()}-{found['size']}"
            return StoredObject(int(found["size"]), hashlib.sha256(str(version).encode()).hexdigest()[:32])

    async def changed_at(self, key: str) -> datetime | None:
        """When the object was written, in UTC; None when there is none."""
        with translated():
            try:
                written: datetime = (await obstore.head_async(self._objects, key))["last_modified"]
            except FileNotFoundError:
                return None
            return written.astimezone(UTC)

    async def stream(
        self, key: str, piece_bytes: int = 2**20, span: tuple[int, int] | None = None
    ) -> AsyncIterator[bytes]:
        """The object's bytes in pieces of about `piece_bytes`; `span` is (first, behind the last) of them."""
        with translated():
            result = await obstore.get_async(self._objects, key, options={"range": span} if span else None)
            async for chunk in result.stream(min_chunk_size=piece_bytes):
                yield bytes(chunk)

    @asynccontextmanager
    async def local_file(self, key: str) -> AsyncIterator[Path]:
        """A readable path of the object: in place, or a copy that is removed afterwards.

        Raises:
            FileNotFoundError: there is no such object.
        """
        if self.local_root is not None:
            path = inside(self.local_root, key)
            if not path.is_file():
                raise FileNotFoundError(errno.ENOENT, "no such object")
            yield path
            return
        folder = self.new_staging_path()  # of its own: a parser may look for more of the slide beside it
        folder.mkdir()
        try:
            staged = folder / "slide"
            await self._download(key, staged)
            yield staged
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    @asynccontextmanager
    async def opened(self, key: str) -> AsyncIterator[Path | BinaryIO]:
        """The object for whoever reads parts of it: its path, or a file that asks a remote store for what is read. That
        one blocks: use it in a thread.

        Raises:
            FileNotFoundError: there is no such object.
        """
        if self.local_root is not None:
            async with self.local_file(key) as path:
                yield path
            return
        with translated():
            reader = await asyncio.to_thread(obstore.open_reader, self._objects, key)
        with io.BufferedReader(RangeReader(reader), _READ_AHEAD_BYTES) as file:
            yield file

    async def bring(self, key: str, folder: Path) -> Path:
        """A readable path of the object: in place, or a copy in `folder` that the caller removes with it."""
        if self.local_root is not None:
            return inside(self.local_root, key)
        copy = folder / uuid.uuid4().hex
        await self._download(key, copy)
        return copy

    async def _download(self, key: str, path: Path) -> None:
        with path.open("wb") as file:
            async for chunk in self.stream(key):
                file.write(chunk)


class RangeReader(io.RawIOBase):
    """An object of a remote store as a file that can be read and sought."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See io.RawIOBase."""
        return int(self._reader.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        """See io.RawIOBase."""
        with translated():
            found = bytes(self._reader.read(len(buffer)))
        buffer[: len(found)] = found
        return len(found)


def open_store(settings: Settings) -> SlideStore:
    """The store that the settings name."""
    return SlideStore(settings.store_url or str(settings.data_dir / "store"), settings.data_dir / "scratch")
