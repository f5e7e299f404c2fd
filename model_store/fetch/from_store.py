"""For places without internet: the same parts from a local folder or a bucket, `<origin>/<part>/<file>`."""

import os
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from model_store.errors import ModelError
from model_store.files.source_digests import REVISION_FILE
from model_store.manifest import Download, Part

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_CHUNK_BYTES: Final = 16 * 2**20


@dataclass(frozen=True)
class StoreOrigin:
    """An `Origin`; `place` is a folder or a URL (s3://, gs://, az://), its credentials in the environment."""

    place: str

    def __call__(self, part: Part, download: Download, folder: Path) -> None:
        """Copies the part's files; a file of the right size is kept, a shorter one continued."""
        from obstore.exceptions import BaseError

        try:
            sizes = self._sizes(part, download)
            for name, size in sizes.items():
                _copy(self._open(), f"{part}/{name}", folder / name, size)
        except BaseError as error:
            raise ModelError(
                f"The files of {part} could not be read from the given place ({type(error).__name__}): check the "
                "address and the credentials, and run the same command again."
            ) from error
        if not sizes:
            raise ModelError(f"The given place has no file of {part}/ that is needed: {', '.join(download.patterns)}.")

    def _open(self) -> "ObjectStore":
        from obstore.store import LocalStore, from_url

        if "://" in self.place:
            return from_url(self.place)
        folder = Path(self.place).expanduser()
        if not folder.is_dir():
            raise ModelError(
                "The given folder does not exist; give one that holds tile_encoder/, slide_encoder/, llm/."
            )
        return LocalStore(folder)

    def _sizes(self, part: Part, download: Download) -> dict[str, int]:
        """Bytes of the wanted files that lie directly in the part's folder."""
        import obstore

        wanted = (*download.patterns, REVISION_FILE)
        sizes = {
            str(PurePosixPath(entry["path"]).relative_to(part)): int(entry["size"])
            for batch in obstore.list(self._open(), part)
            for entry in batch
        }
        return {
            name: size
            for name, size in sorted(sizes.items())
            if "/" not in name and any(fnmatch(name, pattern) for pattern in wanted)
        }


def _copy(store: "ObjectStore", key: str, target: Path, size: int) -> None:
    import obstore

    if target.is_file() and target.stat().st_size == size:
        return
    partial = target.with_name(f"{target.name}.partial")
    with partial.open("ab") as file:
        # Appending starts at the end, so this is how much is there already.
        if file.tell() > size:
            file.truncate(0)
        if (start := file.tell()) < size:
            result = obstore.get(store, key, options={"range": {"offset": start}})
            for chunk in result.stream(min_chunk_size=_CHUNK_BYTES):
                file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(target)
