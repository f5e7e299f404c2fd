"""Compares downloads with the manifest's digests; where it has none, the first use is recorded and printed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from model_store.errors import ModelError
from model_store.files.sha256sums import file_digest
from model_store.manifest import MANIFEST_FILE, Download, Manifest, Part, load_manifest

Say = Callable[[str], None]
# Written by `fetch` beside the files of a part: the commit that they belong to.
REVISION_FILE: Final = "REVISION"


def check_and_record(part: Part, download: Download, folder: Path, files: Sequence[Path], say: Say) -> Download:
    """Hashes the files, which lie in `folder`; returns the download with every digest and the revision filled in.

    Raises ModelError naming the file that is not the one the manifest, or an earlier conversion, says.
    """
    digests = {}
    for file in files:
        path = file.relative_to(folder).as_posix()
        digests[path] = file_digest(file)
        if download.digests == "unrecorded":
            say(f"{part}/{path}: SHA-256 {digests[path]} recorded; it was not known beforehand (trust on first use)")
        elif download.sha256.get(path) != digests[path]:
            raise ModelError(_is_another(part, path, download))
    return download.model_copy(
        update={
            "digests": "recorded" if download.digests == "unrecorded" else download.digests,
            "sha256": dict(sorted({**download.sha256, **digests}.items())),
            "revision": _revision(part, download, folder),
        }
    )


def with_recorded(manifest: Manifest, models_dir: Path) -> Manifest:
    """The manifest, its unrecorded downloads replaced by what an earlier conversion on this machine recorded."""
    path = models_dir / manifest.name / MANIFEST_FILE
    earlier = load_manifest(path).downloads if path.is_file() else None
    if earlier is None or manifest.downloads is None:
        return manifest
    parts = {
        part: earlier[part] if part in earlier and _is_recorded_form_of(earlier[part], download) else download
        for part, download in manifest.downloads.items()
    }
    return manifest.model_copy(update={"downloads": parts})


def _is_recorded_form_of(earlier: Download, download: Download) -> bool:
    same_place = earlier.repository == download.repository
    return download.digests == "unrecorded" and earlier.digests == "recorded" and same_place


def _is_another(part: Part, path: str, download: Download) -> str:
    if path not in download.sha256:
        return f"{part}/{path} is not among the files that the manifest lists; remove it or use its own manifest."
    if download.digests == "published":
        return f"{part}/{path} is not the published file: its SHA-256 differs; get the file again."
    return (
        f"{part}/{path} is not the file that was converted first: its SHA-256 differs; get the file again, or remove "
        "the installed model to trust the new one."
    )


def _revision(part: Part, download: Download, folder: Path) -> str:
    file = folder / REVISION_FILE
    fetched = file.read_text(encoding="utf-8").strip() if file.is_file() else download.revision
    if download.revision not in ("unrecorded", fetched):
        raise ModelError(
            f"{part} was fetched at revision {fetched}, the manifest says {download.revision}; fetch it again."
        )
    return fetched
