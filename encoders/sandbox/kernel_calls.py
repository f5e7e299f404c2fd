"""System calls that Python has no name for. All return whether the kernel agreed; none raises."""

import ctypes
import os
from functools import cache

# The same on every architecture since Linux 5.1.
MOUNT_SETATTR = 442
LANDLOCK_CREATE_RULESET = 444
LANDLOCK_ADD_RULE = 445
LANDLOCK_RESTRICT_SELF = 446


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def call(function: str, *arguments: object) -> bool:
    """A function of the C library that gives 0 for success; False where there is no such function."""
    try:
        found = getattr(_libc(), function)
    except (AttributeError, OSError):
        return False
    return bool(found(*arguments) == 0)


def system_call(number: int, *arguments: object) -> int:
    """A system call by its number, -1 when it is refused. Integers are passed as the kernel's `long`."""
    try:
        function = _libc().syscall
    except (AttributeError, OSError):
        return -1
    function.restype = ctypes.c_long
    words = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    return int(function(ctypes.c_long(number), *words))


def raw(path: str | os.PathLike[str]) -> bytes:
    """A path as the kernel takes it."""
    return os.fsencode(path)
