"""A root folder of the process's own, in a mount namespace: nothing but the slide, the interpreter and its libraries.

Everything in it is a read-only bind mount. There is no /proc, no /dev, no socket and no place to write to.
"""

import ctypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from encoders.sandbox.kernel_calls import MOUNT_SETATTR, call, raw, system_call

# <linux/sched.h>
_CLONE_NEWNS = 0x00020000
_CLONE_NEWIPC = 0x08000000
_CLONE_NEWUSER = 0x10000000
# <linux/mount.h>, <linux/fcntl.h>
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV = 1, 2, 4
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
# Exists wherever Linux runs, and holds neither slides nor libraries.
_BUILT_AT = Path("/proc")
SLIDE_FOLDER = Path("/eyepiece-slide")


def enter_own_root(needed: Sequence[Path], places: Mapping[str, Path]) -> bool:
    """Makes the new root and moves the process there; False when the platform does not grant it.

    `places` maps names below SLIDE_FOLDER to files. Must run while the process has one thread, before it gives up what
    it may do. After a refusal the old root is still there; /proc may not be.
    """
    if not _leave_namespaces():
        return False
    try:
        _build(needed, places)
        _move()
    except OSError:
        return False
    return True


def _leave_namespaces() -> bool:
    user, group = os.geteuid(), os.getegid()
    if call("unshare", _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWIPC):
        try:
            # Without a name in its own namespace a user can make no file, not even an empty one to mount on.
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        except OSError:
            return False
        return True
    return call("unshare", _CLONE_NEWNS | _CLONE_NEWIPC)  # containers may forbid user namespaces and still allow this


def _build(needed: Sequence[Path], places: Mapping[str, Path]) -> None:
    _mount(None, Path("/"), None, _MS_REC | _MS_PRIVATE)
    _mount("tmpfs", _BUILT_AT, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=1m")
    for link in _links_to(needed):
        _inside(link).symlink_to(os.readlink(link))
    for path in needed:
        _bind(path, _inside(path))
    _inside(SLIDE_FOLDER).mkdir()
    for name, path in places.items():
        _bind(path, _inside(SLIDE_FOLDER / name))
    read_only = _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV
    attributes = (ctypes.c_uint64 * 4)(read_only, 0, 0, 0)
    size = ctypes.sizeof(attributes)
    if system_call(MOUNT_SETATTR, _AT_FDCWD, raw(_BUILT_AT), _AT_RECURSIVE, attributes, size) != 0:
        raise _refused("mount_setattr")


def _move() -> None:
    os.chdir(_BUILT_AT)
    if not call("pivot_root", b".", b"."):
        raise _refused("pivot_root")
    # The old root lies over the new one now; below it nothing of it is left.
    if not call("umount2", b".", _MNT_DETACH):
        raise SystemExit("The reader cannot leave the machine's files.")
    os.chdir("/")


def _links_to(needed: Sequence[Path]) -> list[Path]:
    """/lib and the like, where they are links to /usr/lib: the loader's cache has the names of both."""
    links = [Path(entry.path) for entry in os.scandir("/") if entry.is_symlink()]
    return [link for link in links if any(path.is_relative_to(os.path.realpath(link)) for path in needed)]


def _bind(source: Path, target: Path) -> None:
    if source.is_dir():
        target.mkdir(parents=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount(str(source), target, None, _MS_BIND | _MS_REC)


def _inside(path: Path) -> Path:
    return _BUILT_AT / path.relative_to("/")


def _mount(source: str | None, target: Path, kind: str | None, flags: int, options: str | None = None) -> None:
    words = [None if word is None else raw(word) for word in (source, str(target), kind, options)]
    if not call("mount", *words[:3], ctypes.c_ulong(flags), words[3]):
        raise _refused("mount")


def _refused(what: str) -> OSError:
    return OSError(ctypes.get_errno(), f"{what} is refused")
