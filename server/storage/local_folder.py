"""The slide store's local folder: what obstore's local store does not do, or not whole. Blocking; for threads."""

import os
import re
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

# The temporary name that obstore's local store gives to an object which is being written.
_UNFINISHED_WRITE = re.compile(r"#\d+$")


def local_root(url: str) -> Path | None:
    """The folder of a local store; None for a bucket."""
    if "://" not in url:
        return Path(url).resolve()
    if url.startswith("file://"):
        return Path(url.removeprefix("file://")).resolve()
    return None


def inside(root: Path, key: str) -> Path:
    """The object's path. Keys are made by us; one that leaves the store would be a bug worth stopping for."""
    path = root / key
    if ".." in path.parts or not path.is_relative_to(root):
        raise ValueError("a key that leaves the store")
    return path


def newest_change(entry: Path) -> float:
    """The latest modification in a staged file or folder; now, when it goes away meanwhile."""
    try:
        return max(path.lstat().st_mtime for path in (entry, *entry.rglob("*")))
    except FileNotFoundError:
        return time.time()


def link(path: Path, target: Path, replace: bool) -> bool:
    """Hard link, then the old name goes: atomic, and it fails where a rename would overwrite."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if replace:
        os.replace(path, target)
        return True
    try:
        os.link(path, target)
    except FileExistsError:
        return False
    return True


def files_after(folder: Path, after: str, most: int) -> list[str]:
    """At most `most` files below the folder, as relative paths in order, from behind the path `after` on."""
    return list(islice(_in_order(str(folder), after.split("/") if after else ()), most))


def _in_order(folder: str, after: Sequence[str]) -> Iterator[str]:
    """Paths of the files below a folder, as a bucket orders its keys where all names at one depth are of one length."""
    first = after[0] if after else ""
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                (entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries if entry.name >= first
            )
    except FileNotFoundError:  # never made, or empty and removed meanwhile
        return
    for name, is_folder in names:
        if is_folder:
            for path in _in_order(f"{folder}/{name}", after[1:] if name == first else ()):
                yield f"{name}/{path}"
        elif name != first and not _UNFINISHED_WRITE.search(name):
            yield name


def folders_after(folder: Path, after: str) -> list[str]:
    """Names of the folders in it, sorted, behind the name `after`."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.name > after and entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


def sizes_in(folder: Path, names: Sequence[str]) -> list[tuple[str, dict[str, int]]]:
    """Of each of the folders `names`: the sizes of its files, by their paths in it."""
    return [(name, dict(_sizes_below(f"{folder}/{name}"))) for name in names]


def _sizes_below(folder: str) -> Iterator[tuple[str, int]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from ((f"{entry.name}/{name}", size) for name, size in _sizes_below(entry.path))
                elif not _UNFINISHED_WRITE.search(entry.name):
                    yield entry.name, entry.stat().st_size
    except FileNotFoundError:  # deleted meanwhile
        return


def remove_empty_parents(root: Path, path: Path) -> None:
    """Empty folders on the way from `path` up to `root`, which stays."""
    for folder in path.parents:
        if folder == root:
            return
        try:
            os.rmdir(folder)
        except OSError:  # not empty, or somebody else was first
            return


def remove_remains(folder: Path) -> None:
    """Empty folders, and what a write that was killed left: obstore hides it and would keep its folder for ever."""
    for root, _, files in os.walk(folder, topdown=False):
        for name in filter(_UNFINISHED_WRITE.search, files):
            Path(root, name).unlink(missing_ok=True)
        try:
            os.rmdir(root)
        except OSError:  # somebody writes here again: an upload of the same slide
            return
