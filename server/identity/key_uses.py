"""The last use of each API key, in the slide store beside the keys, so that unused keys are found and revoked."""

import asyncio
import time
from datetime import datetime

import structlog

from server.errors import ServerError
from server.slides.slide_record import now
from server.storage.slide_store import SlideStore

# A process writes down a key's use this often at most: a bucket is asked once an hour for each key, not once a request.
NOTED_EVERY_S = 3600.0
_REMEMBERED_KEYS = 10_000
_FOLDER = "key-uses"

log = structlog.get_logger(__name__)


class KeyUses:
    """Writes down when keys were used, in the background: no request waits for it."""

    def __init__(self, store: SlideStore) -> None:
        self._store = store
        self._noted_at: dict[str, float] = {}
        self._writing: set[asyncio.Task[None]] = set()

    def note(self, digest: str) -> None:
        """The key with this digest was used now."""
        moment = time.monotonic()
        noted_at = self._noted_at.get(digest)
        if noted_at is not None and moment - noted_at < NOTED_EVERY_S:
            return
        if len(self._noted_at) >= _REMEMBERED_KEYS:
            self._noted_at.clear()
        self._noted_at[digest] = moment
        task = asyncio.ensure_future(self._write(digest))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write(self, digest: str) -> None:
        try:
            await self._store.put(_path(digest), now().isoformat().encode())
        except ServerError as error:  # a full store still takes questions
            log.warning("key_use_not_noted", code=error.code)

    async def aclose(self) -> None:
        """Wait for what is being written."""
        await asyncio.gather(*self._writing)


async def last_use(store: SlideStore, digest: str) -> datetime | None:
    """When the key was last used, to the hour; None when it never was, or only before this was written down."""
    content = await store.get(_path(digest))
    try:
        return None if content is None else datetime.fromisoformat(content.decode())
    except ValueError:
        return None


async def forget_use(store: SlideStore, digest: str) -> None:
    """The key is gone."""
    await store.delete(_path(digest))


def _path(digest: str) -> str:
    return f"{_FOLDER}/{digest}"
