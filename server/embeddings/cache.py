"""Embeddings of slides and of their regions: Redis is the hot tier, the slide store is the truth.

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
from server.slides.region_record import SlideRegion
from server.slides.slide_index import SlideIndex
from server.slides.slide_record import SlideRecord
from server.storage.slide_store import SlideStore
from server.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)
# One command, because a pipeline of two costs this process as much again, and an answer is on its way meanwhile.
_RENEW = """
local is_hot = redis.call('HEXISTS', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return is_hot
"""
# Whose embedding: a slide's, or that of a region of one.
Embedded = SlideRecord | SlideRegion


@dataclass(frozen=True)
class CachedEmbedding:
    """An embedding with the file's bytes that it was read from."""

    embedding: SlideEmbedding
    content: bytes


class EmbeddingCache:
    """Reads and publishes embedding files. A slide's hot copies are the fields of one hash,
    `eyepiece:{<tenant>}:embeddings:<slide>`: `<encoder>`, of a region with `:<region>` behind it. They live as long as
    one of them is used, and are forgotten together however many keys Redis holds."""

    def __init__(self, redis: Redis, store: SlideStore, ttl_s: int, metrics: Metrics) -> None:
        self._redis = redis
        self._store = store
        self._ttl_s = ttl_s
        self._metrics = metrics
        self._renew = redis.register_script(_RENEW)
        self._reading: dict[str, asyncio.Task[bytes | None]] = {}

    async def exists(self, record: Embedded) -> bool:
        """Whether the slide is encoded: asks the store, which alone decides."""
        return await self._store.exists(_path(record))

    async def find(self, record: Embedded) -> CachedEmbedding | None:
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
            log.warning("embedding_damaged", slide=slide_of(record).id[:12])
            await self._remove_damaged(record)
            raise

    async def _remove_damaged(self, record: Embedded) -> None:
        if isinstance(record, SlideRegion):  # made again when it is asked about
            await self._store.delete(_path(record))
            return
        index = SlideIndex(self._store)
        await index.add("pending", record)
        await self._store.delete(_path(record))
        # Once more: the reconciler may have seen the embedding a moment ago, and have taken the entry away.
        await index.add("pending", record)

    async def renew(self, record: Embedded) -> bool:
        """Whether the embedding is hot, for another while then; True as well while Redis cannot be asked."""
        try:
            is_hot = bool(await self._renew(keys=[_key(record)], args=[_field(record), self._ttl_s]))
        except RedisError:  # a slide's embedding never changes: who holds it may use it
            is_hot = True
        if is_hot:
            self._metrics.embedding_reads.labels("memory").inc()
        return is_hot

    async def publish(self, record: Embedded, content: bytes) -> bool:
        """Store an embedding file for good, then make it hot; a second publisher changes nothing, and gets False."""
        is_new = await self._store.create(_path(record), content)
        await self._to_redis(record, content)
        return is_new

    async def remove(self, region: SlideRegion) -> None:
        """A region that was dropped: nothing is left of its embedding."""
        await self._store.delete(_path(region))
        with suppress(RedisError):  # it expires
            await self._redis.hdel(_key(region), _field(region))

    async def forget(self, tenant: str, slide_id: str) -> None:
        """Drop the hot copies of every encoder of this slide, and of its regions."""
        await self._redis.delete(_slide_key(tenant, slide_id))

    async def _from_redis(self, record: Embedded) -> bytes | None:
        try:
            pipe = self._redis.pipeline(transaction=False)
            pipe.hget(_key(record), _field(record))
            pipe.expire(_key(record), self._ttl_s)
            content: bytes | None = (await pipe.execute())[0]
        except RedisError:  # the cache may be away: the store has the truth
            return None
        if content is not None:
            self._metrics.embedding_reads.labels("redis").inc()
        return content

    async def _from_store_once(self, record: Embedded) -> bytes | None:
        key = _path(record)
        task = self._reading.get(key)
        if task is None:
            task = asyncio.create_task(self._from_store(record))
            self._reading[key] = task
            task.add_done_callback(lambda _: self._reading.pop(key, None))
        # Shielded: one impatient client must not cancel the read of the ninety-nine others.
        return await asyncio.shield(task)

    async def _from_store(self, record: Embedded) -> bytes | None:
        content = await self._store.get(_path(record))
        self._metrics.embedding_reads.labels("miss" if content is None else "store").inc()
        if content is not None:
            await self._to_redis(record, content)
        return content

    async def _to_redis(self, record: Embedded, content: bytes) -> None:
        try:
            pipe = self._redis.pipeline(transaction=True)  # no copy without an end
            pipe.hset(_key(record), _field(record), content)
            pipe.expire(_key(record), self._ttl_s)
            await pipe.execute()
        except RedisError:  # full or away: the next read goes to the store again
            self._metrics.embedding_cache_write_errors.inc()


def slide_of(embedded: Embedded) -> SlideRecord:
    """The slide that it is, or is a region of."""
    return embedded.slide if isinstance(embedded, SlideRegion) else embedded


def region_of(embedded: Embedded) -> str | None:
    """The region's id; None of a whole slide."""
    return embedded.region_id if isinstance(embedded, SlideRegion) else None


def _checked(record: Embedded, content: bytes) -> CachedEmbedding:
    """The embedding in a file's bytes, which lay in this record's place.

    Raises:
        StoredFileDamaged: it is none, is not what was written, or belongs to another slide, encoder or region.
    """
    embedding, slide = from_bytes(content), slide_of(record)
    found = (embedding.slide_id, embedding.encoder_id, embedding.region_id)
    if found != (slide.id, slide.encoder_id, region_of(record)):
        raise StoredFileDamaged("The stored embedding is another slide's or encoder's; encode the slide again.")
    return CachedEmbedding(embedding, content)


def _path(record: Embedded) -> str:
    slide, region_id = slide_of(record), region_of(record)
    return slide.paths.embedding(slide.encoder_id) if region_id is None else slide.paths.region_embedding(region_id)


def _key(record: Embedded) -> str:
    slide = slide_of(record)
    return _slide_key(slide.tenant, slide.id)


def _slide_key(tenant: str, slide_id: str) -> str:
    return f"eyepiece:{{{tenant}}}:embeddings:{slide_id}"


def _field(record: Embedded) -> str:
    encoder_id, region_id = slide_of(record).encoder_id, region_of(record)
    return encoder_id if region_id is None else f"{encoder_id}:{region_id}"
