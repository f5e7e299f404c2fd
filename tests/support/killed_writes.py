"""A store whose process is killed before one of its writes: that one and all later ones do not happen."""

import functools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from server.storage.slide_store import SlideStore

_WRITES = ("put", "create", "publish_file", "delete", "discard", "delete_folder")


class Killed(BaseException):
    """No `except Exception` sees it."""


@contextmanager
def killed_before_write(store: SlideStore, number: int) -> Iterator[Callable[[], bool]]:
    """The block ends before its write `number` (from 0), and writes after that do not happen either; gives whether it
    came so far."""
    patch, writes = pytest.MonkeyPatch(), [0]

    def counted(write: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(write)
        async def counting(*arguments: Any, **named: Any) -> Any:
            writes[0] += 1
            if writes[0] > number:
                raise Killed
            return await write(*arguments, **named)

        return counting

    for name in _WRITES:
        patch.setattr(store, name, counted(getattr(store, name)))
    try:
        yield lambda: writes[0] > number
    except Killed:
        pass
    finally:
        patch.undo()
