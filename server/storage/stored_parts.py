"""The parts of a slide that is being encoded, in the slide store; the worker's side of `encoders.feature_parts`.

Nothing here fails an encode: a store that does not answer costs what would not have to be encoded again.
"""

import asyncio
from collections.abc import Collection, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import structlog

from model_store.errors import EyepieceError
from server.storage.slide_store import SlidePaths, SlideStore

log = structlog.get_logger(__name__)
# A part is 6 MB as a rule; a store that takes longer is as good as away.
_PATIENCE_S = 60.0
T = TypeVar("T")


class StoredParts:
    """Parts of one slide and encoder: `FeatureParts` for the encoding thread, done on the event loop."""

    def __init__(self, store: SlideStore, folder: str, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._folder = folder
        self._loop = loop

    def names(self) -> list[str]:
        """What is there; nothing while the store does not answer."""
        return self._begin("list", self._store.objects(self._folder), []).result()

    def read(self, name: str) -> bytes | None:
        """A part's bytes, None while the store does not answer."""
        return self._begin("read", self._store.get(f"{self._folder}/{name}"), None).result()

    def write(self, name: str, content: bytes) -> Future[bool]:
        """Begins to write or replace a part; the result is False when the store does not take it."""
        return self._begin("write", self._put(name, content), False)

    async def _put(self, name: str, content: bytes) -> bool:
        await self._store.put(f"{self._folder}/{name}", content)
        return True

    def _begin(self, action: str, work: Coroutine[Any, Any, T], otherwise: T) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(_with_fallback(action, work, otherwise), self._loop)


async def remove_parts(store: SlideStore, paths: SlidePaths, encoder_id: str) -> None:
    """The slide is encoded by that encoder, or never will be. What cannot be removed now the reconciler finds."""
    await _with_fallback("remove", _remove_each(store, paths, [encoder_id]), None)


async def remove_parts_of_others(store: SlideStore, paths: SlidePaths, keep: Collection[str]) -> int:
    """Removes the parts of every encoder but those in `keep`; of how many. Raises when the store does not answer."""
    others = [encoder for encoder in await store.folders(paths.all_parts) if encoder not in keep]
    if others:
        await _remove_each(store, paths, others)
    return len(others)


async def _remove_each(store: SlideStore, paths: SlidePaths, encoder_ids: Sequence[str]) -> None:
    """All at once when nothing else is there: a local store would keep an empty folder for every slide."""
    if set(await store.folders(paths.all_parts)) <= set(encoder_ids):
        await store.delete_folder(paths.all_parts)
        return
    for encoder_id in encoder_ids:
        await store.delete_folder(paths.parts(encoder_id))


async def _with_fallback(action: str, work: Coroutine[Any, Any, T], otherwise: T) -> T:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await work
    except (EyepieceError, TimeoutError) as error:
        log.warning("parts_unavailable", action=action, error=type(error).__name__)
        return otherwise
