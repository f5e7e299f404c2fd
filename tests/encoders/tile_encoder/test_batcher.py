import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_tile_encoder import BATCH_TILES, FEATURE_DIM, SIDE_PX, small_encoder, small_weights, spec_of

from encoders.errors import EncodeCancelled
from encoders.tile_encoder import batch_queue
from encoders.tile_encoder.batcher import TileBatcher
from encoders.tile_encoder.encode import TileEncoder
from encoders.tile_encoder.staging import Staging
from model_store.errors import ModelError

# Beyond any batch of the small encoder: only a deadlock takes so long.
PATIENCE_S = 60
TILE_PX = SIDE_PX + 4
POOL = np.random.default_rng(0).integers(0, 256, (200, TILE_PX, TILE_PX, 3), dtype=np.uint8)

Tiles = NDArray[np.uint8]
Features = NDArray[np.float32]


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TileEncoder:
    return small_encoder(tmp_path_factory.mktemp("weights"), dtype=request.param)


@pytest.fixture
def batcher(encoder: TileEncoder) -> Iterator[TileBatcher]:
    batcher = TileBatcher(encoder)
    yield batcher
    batcher.close()


@pytest.fixture
def never_tired(monkeypatch: pytest.MonkeyPatch) -> None:
    """No batch goes because of the delay."""
    monkeypatch.setattr(batch_queue, "DELAY_S", PATIENCE_S * 10)


def encode(
    batcher: TileBatcher, tiles: Tiles, sizes: Sequence[int], between: Callable[[], None] = lambda: None
) -> Features:
    """One slide, put in pieces of these sizes and then the rest."""
    parts: list[Features] = []
    with batcher.slide() as slide:
        for piece in np.split(tiles, np.minimum(np.cumsum(sizes), len(tiles)) if sizes else []):
            slide.put(piece)
            parts += slide.take()
            between()
        parts += slide.finish()
    return np.concatenate([np.empty((0, FEATURE_DIM), np.float32), *parts])


def in_threads(*work: Callable[[], Features]) -> list[Features]:
    with ThreadPoolExecutor(len(work)) as threads:
        return [done.result(PATIENCE_S) for done in [threads.submit(each) for each in work]]


@pytest.mark.parametrize("tiles", [0, 1, BATCH_TILES - 1, BATCH_TILES, BATCH_TILES + 1, 5 * BATCH_TILES + 3])
def test_a_slide_gives_what_the_encoder_gives(batcher: TileBatcher, encoder: TileEncoder, tiles: int) -> None:
    features = encode(batcher, POOL[:tiles], [3, 4, 20])

    assert features.shape == (tiles, FEATURE_DIM)
    if tiles:
        assert np.array_equal(features, encoder.encode(POOL[:tiles]))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_slides_that_share_batches_give_what_they_give_alone(data: st.DataObject, encoder: TileEncoder) -> None:
    counts = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=4))
    pieces = [data.draw(st.lists(st.integers(0, 19), max_size=6)) for _ in counts]
    seed = data.draw(st.integers(0, 1000))
    starts = [random.Random(seed + number).randrange(160) for number in range(len(counts))]
    slides = [POOL[start : start + count] for start, count in zip(starts, counts, strict=True)]
    batcher = TileBatcher(encoder)

    def work(number: int) -> Features:
        chance = random.Random(seed * 10 + number)
        # A thread that gives way at random places: interleavings that hypothesis can choose again.
        return encode(
            batcher, slides[number], pieces[number], lambda: threading.Event().wait(chance.choice([0, 0.002]))
        )

    shared = in_threads(*(lambda number=number: work(number) for number in range(len(slides))))
    batcher.close()

    for features, tiles in zip(shared, slides, strict=True):
        assert len(features) == len(tiles)
        assert not len(tiles) or np.array_equal(features, encoder.encode(tiles))
    assert batcher.tiles == sum(counts)
    assert (batcher.tiles + batcher.padded_tiles) % BATCH_TILES == 0


def test_the_ends_of_two_slides_share_a_batch(batcher: TileBatcher, encoder: TileEncoder, never_tired: None) -> None:
    with batcher.slide() as first, batcher.slide() as second:
        first.put(POOL[:3])
        second.put(POOL[10:14])
        waiting = first.finish()
        rest = second.finish()  # now nobody has more to give
        features = [np.concatenate(list(each)) for each in (waiting, rest)]

    assert np.array_equal(features[0], encoder.encode(POOL[:3]))
    assert np.array_equal(features[1], encoder.encode(POOL[10:14]))
    assert (batcher.tiles, batcher.padded_tiles) == (7, 1)


def test_a_slow_slide_does_not_hold_back_the_end_of_another(batcher: TileBatcher, encoder: TileEncoder) -> None:
    with batcher.slide() as slow, batcher.slide() as quick:
        slow.put(POOL[:1])
        quick.put(POOL[1:3])
        features = np.concatenate(list(quick.finish()))  # ends although the slow one has put next to nothing

        assert np.array_equal(features, encoder.encode(POOL[1:3]))
        slow.put(POOL[3:5])
        assert np.array_equal(np.concatenate(list(slow.finish())), encoder.encode(POOL[[0, 3, 4]]))


def test_nobody_waits_so_nothing_is_padded(batcher: TileBatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_queue, "DELAY_S", 0.0)
    with batcher.slide() as slide:
        for tile in range(2 * BATCH_TILES):
            slide.put(POOL[tile : tile + 1])
        assert sum(map(len, slide.finish())) == 2 * BATCH_TILES

    assert (batcher.tiles, batcher.padded_tiles) == (2 * BATCH_TILES, 0)


class Gate:
    """Holds every batch back until it is opened."""

    def __init__(self, encoder: TileEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        start = encoder.start

        def held(staging: Staging) -> None:
            self.reached.set()
            assert self.open.wait(PATIENCE_S)
            start(staging)

        monkeypatch.setattr(encoder, "start", held)


def test_putting_waits_for_buffers_and_taking_waits_for_nothing(
    encoder: TileEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(encoder, monkeypatch)
    batcher = TileBatcher(encoder)
    ended = threading.Event()
    with batcher.slide() as slide:
        slide.put(POOL[: 3 * BATCH_TILES])  # one is held, two are filled
        assert slide.take() == []

        def put_one_more() -> Features:
            slide.put(POOL[:1])
            ended.set()
            return POOL[:1]

        with ThreadPoolExecutor(1) as thread:
            putting = thread.submit(put_one_more)
            assert gate.reached.wait(PATIENCE_S)
            assert not ended.wait(0.05)
            gate.open.set()
            putting.result(PATIENCE_S)
        assert sum(map(len, slide.finish())) == 3 * BATCH_TILES + 1
    batcher.close()


def test_leaving_early_discards_tiles_and_hurts_nobody(encoder: TileEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(encoder, monkeypatch)
    batcher = TileBatcher(encoder)
    with batcher.slide() as stays:
        with batcher.slide() as leaves:
            leaves.put(POOL[: 2 * BATCH_TILES + 3])  # one held, one queued, one begun
            assert gate.reached.wait(PATIENCE_S)
        gate.open.set()
        stays.put(POOL[50:60])
        features = np.concatenate(list(stays.finish()))
    batcher.close()

    assert np.array_equal(features, encoder.encode(POOL[50:60]))
    assert batcher.tiles == BATCH_TILES + 10, "what nobody waits for is not computed"


def test_a_failure_reaches_the_slides_of_its_batch_and_no_other(
    encoder: TileEncoder, monkeypatch: pytest.MonkeyPatch, never_tired: None
) -> None:
    batcher = TileBatcher(encoder)

    def broken(_: Staging) -> None:
        raise RuntimeError("the kernel is broken")

    with monkeypatch.context() as patch, batcher.slide() as first, batcher.slide() as second:
        patch.setattr(encoder, "start", broken)
        first.put(POOL[:3])
        second.put(POOL[: BATCH_TILES - 3])
        with pytest.raises(RuntimeError, match="kernel is broken"):
            list(first.finish())
        with pytest.raises(RuntimeError, match="kernel is broken"):
            second.put(POOL[:1])
        with pytest.raises(RuntimeError, match="kernel is broken"):
            second.take()
    later = encode(batcher, POOL[:5], [])
    batcher.close()

    assert np.array_equal(later, encoder.encode(POOL[:5]))


def test_a_failure_while_features_come_back_is_the_batchs_too(
    encoder: TileEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = TileBatcher(encoder)

    def broken(_: Staging, __: int) -> Features:
        raise RuntimeError("no such row")

    with monkeypatch.context() as patch, batcher.slide() as slide:
        patch.setattr(Staging, "features", broken)
        slide.put(POOL[:3])
        with pytest.raises(RuntimeError, match="no such row"):
            list(slide.finish())
    assert len(encode(batcher, POOL[:5], [])) == 5
    batcher.close()


def test_a_slide_that_overflows_fails_alone(
    encoder: TileEncoder, monkeypatch: pytest.MonkeyPatch, never_tired: None
) -> None:
    batcher = TileBatcher(encoder)
    expected = encoder.encode(POOL[3:5])
    features_of = Staging.features

    def overflowing(staging: Staging, count: int) -> Features:
        features = features_of(staging, count)
        features[2] = np.inf
        return features

    with monkeypatch.context() as patch, batcher.slide() as first, batcher.slide() as second:
        patch.setattr(Staging, "features", overflowing)
        first.put(POOL[:3])
        second.put(POOL[3:5])
        ends = first.finish(), second.finish()
        with pytest.raises(ModelError, match="overflowed"):
            list(ends[0])
        assert np.array_equal(np.concatenate(list(ends[1])), expected)
    batcher.close()


def test_closing_ends_the_thread_and_every_slide(encoder: TileEncoder) -> None:
    batcher = TileBatcher(encoder)
    threads = threading.active_count()
    with batcher.slide() as slide:
        slide.put(POOL[:3])
        batcher.close()
        assert threading.active_count() == threads - 1
        with pytest.raises(EncodeCancelled):
            list(slide.finish())
    with batcher.slide() as late, pytest.raises(EncodeCancelled):
        late.put(POOL[:3])
    batcher.close()


def test_closing_wakes_who_waits(encoder: TileEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(encoder, monkeypatch)
    batcher = TileBatcher(encoder)
    with batcher.slide() as slide, ThreadPoolExecutor(2) as threads:
        putting = threads.submit(slide.put, POOL[: 4 * BATCH_TILES])
        assert gate.reached.wait(PATIENCE_S)
        closing = threads.submit(batcher.close)
        with pytest.raises(EncodeCancelled):
            putting.result(PATIENCE_S)
        gate.open.set()
        closing.result(PATIENCE_S)


def test_tiles_that_are_too_small_are_refused_and_the_slide_goes_on(batcher: TileBatcher) -> None:
    with batcher.slide() as slide:
        with pytest.raises(ModelError, match="needs 32 px, the tiles have 20"):
            slide.put(POOL[:1, :20, :20])
        slide.put(POOL[:1])
        assert sum(map(len, slide.finish())) == 1


def test_what_was_put_may_be_overwritten_at_once(batcher: TileBatcher, encoder: TileEncoder) -> None:
    with batcher.slide() as slide:
        buffer = POOL[:5].copy()
        slide.put(buffer)
        buffer[:] = 0
        assert np.array_equal(np.concatenate(list(slide.finish())), encoder.encode(POOL[:5]))


def test_time_is_busy_or_idle(batcher: TileBatcher) -> None:
    idle_s = batcher.idle_s
    assert batcher.busy_s == 0

    encode(batcher, POOL[:20], [])

    assert batcher.busy_s > 0
    assert batcher.idle_s > idle_s


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_on_a_gpu_slides_share_batches_too(tmp_path: Path, dtype: str) -> None:
    spec = spec_of(dtype=dtype)
    encoder = TileEncoder(spec, small_weights(tmp_path, spec), torch.device("cuda"), compiles=False)
    expected = small_encoder(tmp_path).encode(POOL)
    batcher = TileBatcher(encoder)

    slides = [POOL[number * 40 : number * 40 + 37] for number in range(4)]
    shared = in_threads(*(lambda tiles=tiles: encode(batcher, tiles, [5, 1, 12]) for tiles in slides))
    batcher.close()

    for number, features in enumerate(shared):
        np.testing.assert_allclose(features, expected[number * 40 : number * 40 + 37], atol=5e-2)
