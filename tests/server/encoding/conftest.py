"""Jobs on a real Redis, and records of slides to queue."""

from collections.abc import Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from server.encoding.jobs import EncodeJobs
from server.settings import Settings
from server.slides.catalogue import SlideCatalogue
from server.slides.slide_record import Priority, SlideRecord
from server.storage.slide_store import SlideStore


@pytest.fixture
def jobs(redis: Redis, settings: Settings) -> EncodeJobs:
    return EncodeJobs(redis, settings)


@pytest.fixture
def record_of(tmp_path: Path, redis: Redis) -> Callable[..., SlideRecord]:
    catalogue = SlideCatalogue(
        SlideStore(str(tmp_path / "store"), tmp_path), redis, lambda mpp, features, budget: f"{mpp or 0:016.3f}"
    )

    def make(name: str = "a", tenant: str = "default", priority: Priority = "routine") -> SlideRecord:
        record = catalogue.new_record(tenant, name.encode().hex().ljust(64, "0"), "x.svs", 5)
        return record.model_copy(update={"priority": priority})

    return make
