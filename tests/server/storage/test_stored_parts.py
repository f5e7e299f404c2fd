"""Parts in the slide store, as the encoding thread sees them: written behind its back, and never a reason to fail."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from encoders.feature_parts import PART_TILES, FeatureParts, PartWriter, load_features
from encoders.types import TilePlan
from server.errors import StorageFull, StorageUnavailable
from server.storage.slide_store import SlidePaths, SlideStore
from server.storage.stored_parts import StoredParts, remove_parts, remove_parts_of_others

PATHS = SlidePaths("default", "ab" * 32)
ENCODER, OTHER = "e" * 16, "f" * 16


class FailingStore(SlideStore):
    """A real store whose next calls fail, when `error` is set."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), folder)
        self.error: Exception | None = None

    async def put(self, key: str, content: bytes) -> None:
        self._fail()
        await super().put(key, content)

    async def get(self, key: str) -> bytes | None:
        self._fail()
        return await super().get(key)

    async def objects(self, prefix: str) -> list[str]:
        self._fail()
        return await super().objects(prefix)

    async def delete_folder(self, prefix: str) -> int:
        self._fail()
        return await super().delete_folder(prefix)

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def store(tmp_path: Path) -> FailingStore:
    return FailingStore(tmp_path / "store")


@pytest.fixture
async def parts(store: SlideStore) -> StoredParts:
    return StoredParts(store, PATHS.parts(ENCODER), asyncio.get_running_loop())


@pytest.fixture
def plan() -> TilePlan:
    coords = np.arange(4 * PART_TILES, dtype=np.int64).reshape(-1, 2)
    return TilePlan(9_000, 9_000, 0.5, "property", None, 0.5, 256, 256.0, 0, 256, coords)


@pytest.fixture
def features(plan: TilePlan) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((len(plan.coords), 3)).astype(np.float32)


def encode(parts: FeatureParts, plan: TilePlan, features: NDArray[np.float32]) -> int:
    """What the encoding thread does; how many tiles it did not have to encode."""
    array = np.zeros_like(features)
    done = load_features(parts, plan, array)
    with PartWriter(parts, plan, array, done) as writer:
        for ready in range(done + 100, len(features) + 100, 100):
            ready = min(ready, len(features))
            array[done:ready] = features[done:ready]
            done = ready
            writer.advance(ready)
    return load_features(parts, plan, array)


async def test_what_one_worker_wrote_another_reads(
    store: SlideStore, parts: StoredParts, plan: TilePlan, features: NDArray[np.float32]
) -> None:
    assert await asyncio.to_thread(encode, parts, plan, features) == len(features)

    again = np.zeros_like(features)
    other = StoredParts(store, PATHS.parts(ENCODER), asyncio.get_running_loop())
    assert await asyncio.to_thread(load_features, other, plan, again) == len(features)
    assert again.tobytes() == features.tobytes()
    names = await store.objects(PATHS.parts(ENCODER))
    assert 2 <= len(names) <= 4


async def test_slides_tenants_and_encoders_do_not_share_parts(
    store: SlideStore, parts: StoredParts, plan: TilePlan, features: NDArray[np.float32]
) -> None:
    await asyncio.to_thread(encode, parts, plan, features)

    elsewhere = [PATHS.parts(OTHER), SlidePaths("other", PATHS.slide_id).parts(ENCODER)]
    for folder in elsewhere:
        others = StoredParts(store, folder, asyncio.get_running_loop())
        assert await asyncio.to_thread(others.names) == []


@pytest.mark.parametrize("error", [StorageUnavailable("It is away."), StorageFull("It is full."), TimeoutError()])
async def test_a_store_that_fails_costs_parts_and_nothing_else(
    store: FailingStore, parts: StoredParts, plan: TilePlan, features: NDArray[np.float32], error: Exception
) -> None:
    await asyncio.to_thread(encode, parts, plan, features)
    (name, *_) = await asyncio.to_thread(parts.names)

    store.error = error

    assert await asyncio.to_thread(parts.names) == []
    assert await asyncio.to_thread(parts.read, name) is None
    assert await asyncio.to_thread(lambda: parts.write(name, b"x").result()) is False
    assert await asyncio.to_thread(encode, parts, plan, features) == 0
    await remove_parts(store, PATHS, ENCODER)
    store.error = None
    assert await asyncio.to_thread(parts.read, name)


async def test_a_store_that_never_answers_is_not_waited_for_for_ever(
    store: SlideStore, parts: StoredParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("server.storage.stored_parts._PATIENCE_S", 0.01)
    monkeypatch.setattr(store, "put", never)

    assert await asyncio.to_thread(lambda: parts.write("x", b"").result()) is False


async def test_removing_an_encoders_parts_leaves_those_of_others(store: SlideStore) -> None:
    for encoder in (ENCODER, OTHER):
        await store.put(f"{PATHS.parts(encoder)}/000000000-1.safetensors", b"x")

    await remove_parts(store, PATHS, ENCODER)

    assert await store.folders(PATHS.all_parts) == [OTHER]


async def test_the_last_parts_leave_no_empty_folder(store: SlideStore) -> None:
    await store.put(f"{PATHS.parts(ENCODER)}/000000000-1.safetensors", b"x")
    await store.put(PATHS.record, b"record")

    await remove_parts(store, PATHS, ENCODER)

    assert store.local_root is not None
    assert [path.name for path in (store.local_root / PATHS.folder).iterdir()] == ["slide.json"]


@pytest.mark.parametrize(("keep", "left"), [({ENCODER}, [ENCODER]), (set(), [])])
async def test_leftovers_are_removed_but_for_the_encoder_that_is_kept(
    store: SlideStore, keep: set[str], left: list[str]
) -> None:
    for encoder in (ENCODER, OTHER, "0" * 16):
        await store.put(f"{PATHS.parts(encoder)}/000000000-1.safetensors", b"x")
    await store.put(PATHS.record, b"record")

    assert await remove_parts_of_others(store, PATHS, keep) == 3 - len(left)

    assert await store.folders(PATHS.all_parts) == left
    assert await store.get(PATHS.record) == b"record"
    assert await remove_parts_of_others(store, PATHS, keep) == 0
