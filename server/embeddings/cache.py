"""Slide embeddings: Redis is the hot tier, the slide store is the truth.

A miss in Redis is filled from the store without a GPU; a hundred concurrent misses read the store once.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from encoders.embedding_file import from_bytes
from encoders.errors import StoredFileDamaged
from encoders.types import SlideEmbedding
from server.slides.slide_index import SlideIndex
from server.slides.slide_record import SlideRecord
from server.storage.slide_store import SlideStore
from server.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class CachedEmbedding:
    """An embedding with the file's bytes that it was read from."""

    embedding: SlideEmbedding
    content: bytes


class EmbeddingCache:
    """Reads and publishes embedding files; the key is `eyepiece:{<tenant>}:embedding:<slide>:<encoder>`."""

    def __init__(self, redis: Redis, store: SlideStore, ttl_s: int, metrics: Metrics) -> None:
        self._redis = redis
        self._store = store
        self._ttl_s = ttl_s
        self._metrics = metrics
        self._reading: dict[str, asyncio.Task[bytes | None]] = {}

    async def exists(self, record: SlideRecord) -> bool:
        """Whether the slide is encoded: asks the store, which alone decides."""
        return await self._store.exists(record.paths.embedding(record.encoder_id))

    async def find(self, record: SlideRecord) -> CachedEmbedding | None:
        """The slide's embedding, or None while it is not encoded.

        Raises:
            StoredFileDamaged: the stored file could not be read and is gone now, so that it can be made again.
        """
        hot = await self._from_redis(record)
        if hot is not None:
            with suppress(StoredFileDamaged):  # the store has the truth
                return _checked(record, hot)
        content = await self._from_store_once(record)
        if content is None:
            return None
        try:
            return _checked(record, content)
        except StoredFileDamaged:
            log.warning("embedding_damaged", slide=record.id[:12])
            index = SlideIndex(self._store)
            await index.add("pending", record)
            await self._store.delete(record.paths.embedding(record.encoder_id))
            # Once more: the reconciler may have seen the embedding a moment ago, and have taken the entry away.
            await index.add("pending", record)
            raise

    async def renew(self, record: SlideRecord) -> bool:
        """Whether the embedding is hot, for another while then; True as well while Redis cannot be asked."""
        try:
            is_hot = bool(await self._redis.expire(_key(record), self._ttl_s))
        except RedisError:  # a slide's embedding never changes: who holds it may use it
            is_hot = True
        if is_hot:
            self._metrics.embedding_reads.labels("memory").inc()
        return is_hot

    async def publish(self, record: SlideRecord, content: bytes) -> bool:
        """Store an embedding file for good, then make it hot; a second publisher changes nothing, and gets False."""
        is_new = await self._store.create(record.paths.embedding(record.encoder_id), content)
        await self._to_redis(record, content)
        return is_new

    async def forget(self, tenant: str, slide_id: str) -> None:
        """Drop the hot copies of every encoder of this slide."""
        pattern = f"eyepiece:{{{tenant}}}:embedding:{slide_id}:*"
        async for key in self._redis.scan_iter(match=pattern, count=500):
            await self._redis.delete(key)

    async def _from_redis(self, record: SlideRecord) -> bytes | None:
        try:
            content: bytes | None = await self._redis.getex(_key(record), ex=self._ttl_s)  # type: ignore[assignment]
        except RedisError:  # the cache may be away: the store has the truth
            return None
        if content is not None:
            self._metrics.embedding_reads.labels("redis").inc()
        return content

    async def _from_store_once(self, record: SlideRecord) -> bytes | None:
        key = _key(record)
        task = self._reading.get(key)
        if task is None:
            task = asyncio.create_task(self._from_store(record))
            self._reading[key] = task
            task.add_done_callback(lambda _: self._reading.pop(key, None))
        # Shielded: one impatient client must not cancel the read of the ninety-nine others.
        return await asyncio.shield(task)

    async def _from_store(self, record: SlideRecord) -> bytes | None:
        content = await self._store.get(record.paths.embedding(record.encoder_id))
        self._metrics.embedding_reads.labels("miss" if content is None else "store").inc()
        if content is not None:
            await self._to_redis(record, content)
        return content

    async def _to_redis(self, record: SlideRecord, content: bytes) -> None:
        try:
            await self._redis.set(_key(record), content, ex=self._ttl_s)
        except RedisError:  # full or away: the next read goes to the store again
            self._metrics.embedding_cache_write_errors.inc()


def _checked(record: SlideRecord, content: bytes) -> CachedEmbedding:
    """The embedding in a file's bytes, which lay in this record's place.

    Raises:
        StoredFileDamaged: it is none, is not what was written, or belongs to another slide or encoder.
    """
    embedding = from_bytes(content)
    if (embedding.slide_id, embedding.encoder_id) != (record.id, record.encoder_id):
        raise StoredFileDamaged("The stored embedding is another slide's or encoder's; encode the slide again.")
    return CachedEmbedding(embedding, content)


def _key(record: SlideRecord) -> str:
    return f"eyepiece:{{{record.tenant}}}:embedding:{record.id}:{record.encoder_id}"
