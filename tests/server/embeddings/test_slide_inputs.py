"""Slide inputs in memory: made once, never used after the embedding was forgotten elsewhere, bounded."""

from pathlib import Path

import pytest
from fakes import sample_embedding
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from encoders.embedding_file import to_bytes
from server.embeddings.cache import CachedEmbedding, EmbeddingCache
from server.embeddings.slide_inputs import SlideInput, SlideInputCache, SlideInputs
from server.settings import Settings
from server.slides.catalogue import SlideCatalogue
from server.slides.slide_record import SlideRecord
from server.storage.redis_client import connect_redis
from server.storage.slide_store import SlideStore
from server.telemetry.metrics import Metrics

ENCODER = "e" * 16


class CountingInputs(SlideInputs):
    """Counts how often a slide's input is made."""

    made = 0

    def make(self, tenant: str, cached: CachedEmbedding) -> SlideInput:
        self.made += 1
        return super().make(tenant, cached)


@pytest.fixture
def inputs() -> CountingInputs:
    return CountingInputs("digest", "secret")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture
def store(tmp_path: Path) -> SlideStore:
    return SlideStore(str(tmp_path / "store"), tmp_path / "store")


@pytest.fixture
def cache(redis: Redis, store: SlideStore, metrics: Metrics) -> EmbeddingCache:
    return EmbeddingCache(redis, store, 60, metrics)


@pytest.fixture
def asked(cache: EmbeddingCache, inputs: CountingInputs) -> SlideInputCache:
    return SlideInputCache(cache, inputs)


def new_record(redis: Redis, store: SlideStore, tenant: str = "a", slide_id: str = "0" * 64) -> SlideRecord:
    return SlideCatalogue(store, redis, lambda mpp, features, budget: ENCODER).new_record(tenant, slide_id, "x.svs", 5)


def tier(metrics: Metrics, name: str) -> float | None:
    return metrics.registry.get_sample_value("eyepiece_embedding_cache_reads_total", {"tier": name})


@pytest.fixture
async def record(redis: Redis, store: SlideStore, cache: EmbeddingCache) -> SlideRecord:
    made = new_record(redis, store)
    await cache.publish(made, to_bytes(sample_embedding(made.id, ENCODER)))
    return made


async def test_a_slide_that_is_asked_about_again_is_not_made_again(
    asked: SlideInputCache, record: SlideRecord, inputs: CountingInputs, metrics: Metrics, redis: Redis
) -> None:
    first = await asked.find(record)
    key = (await redis.keys("*embedding*"))[0]
    await redis.expire(key, 5)

    assert await asked.find(record) is first
    assert first is not None
    assert inputs.made == 1
    await asked.settled()
    assert (tier(metrics, "redis"), tier(metrics, "memory")) == (1, 1)
    assert await redis.ttl(key) > 50  # used here, kept hot for the other replicas


async def test_a_slide_that_is_not_encoded_is_not_found(
    redis: Redis, store: SlideStore, asked: SlideInputCache
) -> None:
    assert await asked.find(new_record(redis, store, slide_id="1" * 64)) is None


async def test_what_redis_has_no_more_is_answered_once_and_forgotten(
    asked: SlideInputCache, record: SlideRecord, store: SlideStore, cache: EmbeddingCache
) -> None:
    first = await asked.find(record)

    await store.delete(record.paths.embedding(ENCODER))
    await cache.forget(record.tenant, record.id)

    assert await asked.find(record) is first  # whoever deletes a slide takes its record first
    await asked.settled()
    assert await asked.find(record) is None


async def test_after_a_flush_of_redis_the_store_is_asked(
    asked: SlideInputCache, record: SlideRecord, redis: Redis, metrics: Metrics
) -> None:
    first = await asked.find(record)
    await redis.flushall()

    for _ in range(2):
        assert await asked.find(record) == first
        await asked.settled()

    assert tier(metrics, "store") == 1
    assert await redis.keys("*embedding*")


async def test_another_upload_tenant_or_encoder_is_another_slide(
    asked: SlideInputCache, record: SlideRecord, redis: Redis, store: SlideStore, cache: EmbeddingCache
) -> None:
    first = await asked.find(record)
    uploaded_again, of_another = new_record(redis, store), new_record(redis, store, tenant="b")
    other_encoder = record.model_copy(update={"encoder_id": "f" * 16})
    for other in (of_another, other_encoder):
        await cache.publish(other, to_bytes(sample_embedding(other.id, other.encoder_id)))

    others = [await asked.find(other) for other in (uploaded_again, of_another, other_encoder)]

    assert first is not None
    assert others[0] == first
    assert others[0] is not first
    assert len({first.uuid, *(other.uuid for other in others if other is not None)}) == 3


async def test_memory_is_bounded_and_what_was_used_last_stays(
    redis: Redis, store: SlideStore, cache: EmbeddingCache, inputs: CountingInputs
) -> None:
    records = [new_record(redis, store, slide_id=f"{number:064x}") for number in range(3)]
    for record in records:
        await cache.publish(record, to_bytes(sample_embedding(record.id, ENCODER)))
    one = inputs.make("a", CachedEmbedding(sample_embedding("0" * 64, ENCODER), b""))
    asked = SlideInputCache(cache, inputs, memory_bytes=2 * len(one.npy_base64))
    inputs.made = 0

    for index in (0, 1, 0, 2, 0):
        await asked.find(records[index])
    assert inputs.made == 3
    await asked.find(records[1])
    assert inputs.made == 4


async def test_one_that_is_larger_than_the_memory_is_answered_and_not_kept(
    record: SlideRecord, cache: EmbeddingCache, inputs: CountingInputs
) -> None:
    asked = SlideInputCache(cache, inputs, memory_bytes=10)

    assert await asked.find(record) == await asked.find(record)
    assert inputs.made == 2


async def test_while_redis_is_away_memory_answers(
    settings_without_redis: Settings, store: SlideStore, inputs: CountingInputs, metrics: Metrics, redis: Redis
) -> None:
    away = connect_redis(settings_without_redis)
    cache = EmbeddingCache(away, store, 60, metrics)
    record = new_record(redis, store)
    await cache.publish(record, to_bytes(sample_embedding(record.id, ENCODER)))
    asked = SlideInputCache(cache, inputs)

    assert await asked.find(record) is await asked.find(record)
    await asked.settled()
    assert (tier(metrics, "store"), tier(metrics, "memory")) == (1, 1)
    await away.aclose()
