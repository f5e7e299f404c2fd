"""The cache: the store is read once however many ask, and has the truth when Redis has forgotten it or is away."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import sample_embedding
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from encoders.embedding_file import to_bytes
from encoders.errors import StoredFileDamaged
from server.embeddings.cache import EmbeddingCache
from server.settings import Settings
from server.slides.catalogue import SlideCatalogue
from server.slides.slide_record import SlideRecord
from server.storage.redis_client import connect_redis
from server.storage.slide_store import SlideStore
from server.telemetry.metrics import Metrics

ENCODER = "e" * 16


class CountingStore(SlideStore):
    """A real store that counts what is read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), folder)
        self.reads: Counter[str] = Counter()

    async def get(self, key: str) -> bytes | None:
        self.reads[key] += 1
        return await super().get(key)


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path / "store")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture
def cache(redis: Redis, store: CountingStore, metrics: Metrics) -> EmbeddingCache:
    return EmbeddingCache(redis, store, 60, metrics)


@pytest.fixture
def record(redis: Redis, store: CountingStore) -> SlideRecord:
    return SlideCatalogue(store, redis, lambda mpp, features, budget: ENCODER).new_record("a", "0" * 64, "x.svs", 5)


@pytest.fixture
def content(record: SlideRecord) -> bytes:
    return to_bytes(sample_embedding(record.id, ENCODER))


def reads(store: CountingStore, record: SlideRecord) -> int:
    return store.reads[record.paths.embedding(ENCODER)]


async def test_an_unknown_slide_has_no_embedding(cache: EmbeddingCache, record: SlideRecord) -> None:
    assert await cache.find(record) is None
    assert not await cache.exists(record)


async def test_a_published_embedding_is_found_hot(
    cache: EmbeddingCache, record: SlideRecord, store: CountingStore, content: bytes
) -> None:
    await cache.publish(record, content)

    found = await cache.find(record)

    assert found is not None
    assert found.content == content
    assert found.embedding.slide_id == record.id
    assert await cache.exists(record)
    assert reads(store, record) == 0


async def test_a_hundred_misses_read_the_store_once(
    cache: EmbeddingCache, record: SlideRecord, store: CountingStore, content: bytes, metrics: Metrics
) -> None:
    await store.put(record.paths.embedding(ENCODER), content)

    found = await asyncio.gather(*(cache.find(record) for _ in range(100)))

    assert all(item is not None and item.content == content for item in found)
    assert reads(store, record) == 1
    sample = metrics.registry.get_sample_value("eyepiece_embedding_cache_reads_total", {"tier": "store"})
    assert sample == 1


async def test_an_impatient_reader_does_not_spoil_it_for_the_others(
    cache: EmbeddingCache, record: SlideRecord, store: CountingStore, content: bytes
) -> None:
    await store.put(record.paths.embedding(ENCODER), content)
    readers = [asyncio.create_task(cache.find(record)) for _ in range(10)]
    while not reads(store, record):  # noqa: ASYNC110 - not a turn of the loop later: the read would be over
        await asyncio.sleep(0)

    readers[0].cancel()
    found = await asyncio.gather(*readers, return_exceptions=True)

    assert sum(isinstance(item, asyncio.CancelledError) for item in found) == 1
    assert sum(getattr(item, "content", None) == content for item in found) == 9


async def test_a_failed_read_is_not_remembered(
    cache: EmbeddingCache, record: SlideRecord, store: CountingStore, content: bytes
) -> None:
    assert await cache.find(record) is None

    await store.put(record.paths.embedding(ENCODER), content)

    assert await cache.find(record) is not None


async def test_an_emptied_redis_is_filled_from_the_store(
    cache: EmbeddingCache, record: SlideRecord, store: CountingStore, content: bytes, redis: Redis
) -> None:
    await cache.publish(record, content)
    await redis.flushall()

    assert await cache.find(record) is not None
    assert await cache.find(record) is not None
    assert reads(store, record) == 1


async def test_without_redis_the_store_answers(
    settings_without_redis: Settings, record: SlideRecord, store: CountingStore, content: bytes, metrics: Metrics
) -> None:
    redis = connect_redis(settings_without_redis)
    cache = EmbeddingCache(redis, store, 60, metrics)

    await cache.publish(record, content)
    found = await cache.find(record)

    assert found is not None
    assert found.content == content
    assert metrics.registry.get_sample_value("eyepiece_embedding_cache_write_errors_total") == 2
    await redis.aclose()


async def test_every_use_lengthens_the_life_of_the_hot_copy(
    cache: EmbeddingCache, record: SlideRecord, content: bytes, redis: Redis
) -> None:
    await cache.publish(record, content)
    key = (await redis.keys("*"))[0]
    await redis.expire(key, 5)

    await cache.find(record)

    assert await redis.ttl(key) > 50
    assert key.decode() == f"eyepiece:{{a}}:embeddings:{record.id}"
    assert await redis.hkeys(key) == [ENCODER.encode()]


async def test_a_second_publisher_changes_nothing(
    cache: EmbeddingCache, record: SlideRecord, store: CountingStore, content: bytes
) -> None:
    await cache.publish(record, content)
    await cache.publish(record, to_bytes(sample_embedding(record.id, ENCODER, value=0.25)))

    assert await store.get(record.paths.embedding(ENCODER)) == content


async def test_forgetting_leaves_other_slides_and_tenants(
    cache: EmbeddingCache, record: SlideRecord, content: bytes, redis: Redis
) -> None:
    others = [record.model_copy(update=change) for change in ({"id": "1" * 64}, {"tenant": "b"}, {"tenant": "aa"})]
    for each in (record, record.model_copy(update={"encoder_id": "f" * 16}), *others):
        await cache.publish(each, content)

    await cache.forget("a", record.id)

    assert len(await redis.keys("*")) == len(others)
    assert [await cache.renew(each) for each in (record, *others)] == [False, True, True, True]


def with_a_flipped_bit(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    "damage",
    [lambda content: b"", lambda content: content[:-5], lambda content: b"x" * 100, with_a_flipped_bit],
)
async def test_a_damaged_hot_copy_is_replaced_by_the_stored_one(
    cache: EmbeddingCache, record: SlideRecord, content: bytes, redis: Redis, damage: Callable[[bytes], bytes]
) -> None:
    await cache.publish(record, content)
    key = (await redis.keys("*"))[0]
    await redis.hset(key, ENCODER, damage(content))

    found = await cache.find(record)

    assert found is not None
    assert found.content == content
    assert await redis.hget(key, ENCODER) == content


@pytest.mark.parametrize(
    "stored",
    [
        lambda content: content[:-5],
        with_a_flipped_bit,
        lambda content: to_bytes(sample_embedding("1" * 64, ENCODER)),
        lambda content: to_bytes(sample_embedding("0" * 64, "f" * 16)),
    ],
    ids=["cut", "a flipped bit", "another slide's", "another encoder's"],
)
async def test_a_damaged_stored_file_makes_room_for_a_new_one(
    cache: EmbeddingCache,
    record: SlideRecord,
    store: CountingStore,
    content: bytes,
    stored: Callable[[bytes], bytes],
) -> None:
    await store.put(record.paths.embedding(ENCODER), stored(content))

    with pytest.raises(StoredFileDamaged):
        await cache.find(record)

    assert not await cache.exists(record)
    await cache.publish(record, content)
    assert await cache.find(record) is not None
