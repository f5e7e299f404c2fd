"""Translates what the slide store's libraries and the disk raise."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import BaseError

from server.errors import StorageFull, StorageUnavailable


@contextmanager
def translated() -> Iterator[None]:
    """The store's own errors carry paths and credentials; ours do not."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, BaseError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(error):
            raise StorageFull("The slide store is full; delete slides or add space, then try again.") from error
        raise StorageUnavailable("The slide store does not answer; try again shortly.") from error
