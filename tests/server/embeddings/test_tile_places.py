"""Places of tiles: read where the features lie, a bucket too, and kept within bounds."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from encoders.errors import RegionsUnavailable
from encoders.regions.outline import Outline
from encoders.regions.stored_tiles import read_tile_features
from encoders.regions.tile_places import TilePlaces
from server.embeddings.tile_places import TilePlacesCache
from server.slides.slide_record import SlideRecord, now
from server.storage.slide_store import SlideStore

TILES = 5_000


def record(name: str = "a", generation: str = "1", tenant: str = "default") -> SlideRecord:
    return SlideRecord(
        id=name * 64,
        tenant=tenant,
        generation=generation,
        filename="a.svs",
        size_bytes=5,
        created_at=now(),
        encoder_id="e" * 16,
    )


def features(path: Path) -> bytes:
    rows = np.arange(TILES * 64, dtype=np.float32).reshape(TILES, 64)
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=rows, chunks=(100, 64), fletcher32=True)
        file.create_dataset("coords", data=np.arange(2 * TILES).reshape(TILES, 2), fletcher32=True)
        file.attrs["tile_px_level0"] = 100.0
    return path.read_bytes()


@pytest.fixture(params=["local", "remote"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SlideStore:
    url = str(tmp_path / "store") if request.param == "local" else "memory:///"
    return SlideStore(url, tmp_path / "scratch")


async def test_places_are_read_once(store: SlideStore, tmp_path: Path) -> None:
    places = TilePlacesCache(store)
    key = record().paths.features(record().encoder_id)
    await store.put(key, features(tmp_path / "a.h5"))

    found = await places.find(record())
    await store.delete(key)

    assert found.coords.tolist() == np.arange(2 * TILES).reshape(TILES, 2).tolist()
    assert await places.find(record()) is found
    with pytest.raises(RegionsUnavailable, match="given as slide features"):
        await places.find(record(generation="2"))  # uploaded again, and given otherwise


async def test_features_of_a_region_are_read_where_they_lie(store: SlideStore, tmp_path: Path) -> None:
    await store.put("a", features(tmp_path / "a.h5"))
    chosen = np.array([3, 250, 4_999])

    async with store.opened("a") as stored:
        found = read_tile_features(stored, chosen)

    assert found[:, 0].tolist() == (chosen * 64).tolist()


async def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    store = SlideStore(str(tmp_path / "store"), tmp_path)
    places = TilePlacesCache(store, memory_bytes=2 * TILES * 16)
    content = features(tmp_path / "a.h5")
    for name in "abc":
        await store.put(record(name).paths.features("e" * 16), content)

    first, second = await places.find(record("a")), await places.find(record("b"))
    assert await places.find(record("a")) is first
    await places.find(record("c"))

    assert await places.find(record("a")) is first
    assert await places.find(record("b")) is not second


async def test_an_outline_that_takes_long_keeps_its_own_tenant_waiting_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SlideStore(str(tmp_path / "store"), tmp_path)
    for tenant in ("default", "other"):
        await store.put(record(tenant=tenant).paths.features("e" * 16), features(tmp_path / "a.h5"))
    slow, quick = Outline.rectangle(0, 0, 1, 1), Outline.rectangle(0, 0, 2, 2)
    begun, release, looked = threading.Event(), threading.Event(), list[str]()

    def look(_: TilePlaces, outline: Outline) -> Any:
        looked.append("slow" if outline is slow else "quick")
        if outline is slow:
            begun.set()
            release.wait(60)
        return np.array([0])

    monkeypatch.setattr(TilePlaces, "require_inside", look)
    places = TilePlacesCache(store)
    first = asyncio.create_task(places.inside(record(), slow))
    await asyncio.to_thread(begun.wait, 60)
    second = asyncio.create_task(places.inside(record(), quick))

    await places.inside(record(tenant="other"), quick)

    assert looked == ["slow", "quick"]
    release.set()
    await asyncio.gather(first, second)
    assert len(looked) == 3
