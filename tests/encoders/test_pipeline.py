"""From a slide to its embedding, in one go and in several attempts."""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from parts_in_memory import PartsInMemory

from encoders.caller import Caller
from encoders.embedding_file import from_bytes, to_bytes
from encoders.encoder_id import encoder_id
from encoders.errors import EncodeCancelled, MissingMpp, UnreadableSlide
from encoders.features_file import read_features
from encoders.pipeline import Encoders, encode_slide, load_encoders
from encoders.slide_stages.longnet_pool import LongnetPoolStage
from encoders.slide_stages.slide_stage import SlideStage, Tensors
from encoders.slide_stages.tile_stage import ReadTiles
from encoders.tile_budget import TileBudget
from encoders.tile_encoder.batcher import SlideTiles, TileBatcher
from encoders.tiling.isolation.reader_process import ReaderLimits
from encoders.types import SlideEmbedding, SlideFile, Stage
from model_store.installed import InstalledModel

LIMITS = ReaderLimits()


@pytest.fixture(scope="module")
def encoders(demo_model: InstalledModel) -> Iterator[Encoders]:
    with load_encoders(demo_model, "cpu") as encoders:
        yield encoders


class Job:
    """One encode with everything around it recorded."""

    def __init__(self, folder: Path, encoders: Encoders) -> None:
        self.features_path = folder / "features.h5"
        self.encoders = encoders
        self.progress: list[tuple[Stage, int, int]] = []
        self.cancelled = threading.Event()
        self.cancel_after: tuple[Stage, int] | None = None
        self.opened: list[tuple[str, str]] = []
        self.parts = PartsInMemory()

    def note(self, stage: Stage, done: int, total: int) -> None:
        self.progress.append((stage, done, total))
        if self.cancel_after is not None and stage == self.cancel_after[0] and done >= self.cancel_after[1]:
            self.cancelled.set()

    def note_opened(self, reader: str, reason: str) -> None:
        self.opened.append((reader, reason))

    def run(self, path: Path, mpp: float | None = None, budget: TileBudget | None = None) -> SlideEmbedding:
        return encode_slide(
            SlideFile("ab" * 32, path, budget=budget),
            self.encoders,
            mpp_override=mpp,
            limits=LIMITS,
            features_path=self.features_path,
            caller=Caller(self.note, self.note_opened, self.cancelled, self.parts),
        )


@pytest.fixture
def job(tmp_path: Path, encoders: Encoders) -> Job:
    return Job(tmp_path, encoders)


def test_a_slide_becomes_an_embedding_and_a_features_file(job: Job, sample_slide: Path) -> None:
    embedding = job.run(sample_slide)

    features = read_features(job.features_path)
    assert embedding.slide_id == "ab" * 32
    assert embedding.encoder_id == encoder_id(job.encoders.model)
    assert embedding.tile_count == len(features.features) > 10
    assert embedding.mpp_source == "property"
    assert embedding.tensors["slide_tokens"].shape == (32, 96)
    stage = job.encoders.stage
    assert isinstance(stage, LongnetPoolStage)
    assert np.array_equal(embedding.tensors["slide_tokens"], stage.encoder.encode(features))
    assert from_bytes(to_bytes(embedding)).created_at == embedding.created_at


@pytest.mark.parametrize("budget", [TileBudget(5), TileBudget(5, "random", 2)])
def test_a_tile_budget_encodes_those_of_all_tiles_and_says_so_in_the_id(
    job: Job, sample_slide: Path, budget: TileBudget
) -> None:
    whole = job.run(sample_slide)
    all_tiles = read_features(job.features_path)

    embedding = job.run(sample_slide, budget=budget)

    features = read_features(job.features_path)
    chosen = budget.of_slide("ab" * 32).chosen(whole.tile_count)
    assert embedding.tile_count == len(features.features) == 5
    assert np.array_equal(features.plan.coords, all_tiles.plan.coords[chosen])
    assert np.allclose(features.features, all_tiles.features[chosen], atol=1e-4)
    assert embedding.encoder_id == encoder_id(job.encoders.model, budget=budget) != whole.encoder_id


def test_progress_starts_at_nothing_counts_tiles_and_ends_complete(job: Job, sample_slide: Path) -> None:
    tiles = job.run(sample_slide).tile_count

    stages = [stage for stage, _, _ in job.progress]
    assert list(dict.fromkeys(stages)) == ["tile", "encode_tiles", "encode_slide"]
    counted = [(done, total) for stage, done, total in job.progress if stage == "encode_tiles"]
    assert counted[0] == (0, tiles)
    assert counted[-1] == (tiles, tiles)
    assert counted == sorted(counted)


def test_the_same_slide_gives_the_same_embedding(job: Job, sample_slide: Path) -> None:
    first, second = job.run(sample_slide), job.run(sample_slide)

    assert np.array_equal(first.tensors["slide_tokens"], second.tensors["slide_tokens"])


def test_a_slide_without_resolution_asks_for_it_and_takes_it(job: Job, shared_slides: Path) -> None:
    path = shared_slides / "tcga-cr-7395-ts1.svs"

    with pytest.raises(MissingMpp):
        job.run(path)
    embedding = job.run(path, mpp=0.5)

    assert embedding.mpp_source == "override"
    assert embedding.encoder_id == encoder_id(job.encoders.model, 0.5) != encoder_id(job.encoders.model)


def test_a_damaged_slide_leaves_no_features_behind(job: Job, shared_slides: Path) -> None:
    with pytest.raises(UnreadableSlide, match="level-0 rectangle"):
        job.run(shared_slides / "made_corrupt_zeros_tail.svs")

    assert not job.features_path.exists()


def test_cancelling_stops_within_the_slide_encoder(job: Job, sample_slide: Path) -> None:
    job.cancel_after = ("encode_slide", 0)

    with pytest.raises(EncodeCancelled):
        job.run(sample_slide)

    assert ("encode_slide", 0, 1) in job.progress
    assert ("encode_slide", 1, 1) not in job.progress


@pytest.mark.parametrize("stage", ["tile", "encode_tiles"])
def test_cancelling_stops_before_the_next_batch(job: Job, sample_slide: Path, stage: Stage) -> None:
    job.cancel_after = (stage, 0)

    with pytest.raises(EncodeCancelled):
        job.run(sample_slide)

    assert ("encode_slide", 0, 1) not in job.progress
    assert not job.features_path.exists()


class CountingTiles:
    """Counts the tiles that are given to the tile encoder."""

    def __init__(self, tiles: SlideTiles, counter: "CountingBatcher") -> None:
        self._tiles = tiles
        self._counter = counter
        self.take, self.finish = tiles.take, tiles.finish

    def put(self, pixels: NDArray[np.uint8]) -> None:
        self._counter.tiles_put += len(pixels)
        self._tiles.put(pixels)


class CountingBatcher:
    def __init__(self, batcher: TileBatcher) -> None:
        self._batcher = batcher
        self.tiles_put = 0

    @contextmanager
    def slide(self) -> Iterator[CountingTiles]:
        with self._batcher.slide() as tiles:
            yield CountingTiles(tiles, self)


class DyingStage:
    """Its process is killed while it encodes, as far as anybody can tell who is left."""

    def __init__(self, stage: SlideStage[Any]) -> None:
        self.read = stage.read

    def encode(self, read: ReadTiles, ask: Callable[[], None]) -> Tensors:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def patient(demo_model: InstalledModel) -> Iterator[Encoders]:
    """Encoders that take two tiles at a time, so that a small slide has many batches."""
    manifest = demo_model.manifest.with_inputs(tile_encoder={"batch_tiles": 2})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # slides share batches here: see encoders.tile_encoder.batcher
    with load_encoders(dataclasses.replace(demo_model, manifest=manifest), "cpu") as encoders:
        yield encoders
    torch.set_num_threads(threads)


@pytest.fixture
def counter(patient: Encoders) -> CountingBatcher:
    [given] = patient.inputs.values()
    return CountingBatcher(given.batcher)


@pytest.fixture
def counted(tmp_path: Path, patient: Encoders, counter: CountingBatcher) -> Job:
    """A job whose tiles are counted."""
    [(name, given)] = patient.inputs.items()
    watched = dataclasses.replace(given, batcher=counter)  # type: ignore[arg-type]
    return Job(tmp_path, dataclasses.replace(patient, inputs={name: watched}))


def features_bytes(path: Path) -> tuple[bytes, bytes]:
    with h5py.File(path) as file:
        return file["features"][()].tobytes(), file["coords"][()].tobytes()


@dataclasses.dataclass(frozen=True)
class Undisturbed:
    tokens: bytes
    features: tuple[bytes, bytes]
    tiles: int


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, patient: Encoders, sample_slide: Path) -> Undisturbed:
    job = Job(tmp_path_factory.mktemp("undisturbed"), patient)
    embedding = job.run(sample_slide)
    tokens = embedding.tensors["slide_tokens"].tobytes()
    return Undisturbed(tokens, features_bytes(job.features_path), embedding.tile_count)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_an_attempt_goes_on_where_the_last_one_stopped(
    counted: Job, counter: CountingBatcher, sample_slide: Path, undisturbed: Undisturbed, share: float
) -> None:
    counted.cancel_after = ("encode_tiles", round(share * undisturbed.tiles))
    with pytest.raises(EncodeCancelled):
        counted.run(sample_slide)
    kept = max(done for stage, done, _ in counted.progress if stage == "encode_tiles")
    assert round(share * undisturbed.tiles) <= kept < undisturbed.tiles
    counted.cancelled.clear()
    counted.cancel_after = None
    counted.progress.clear()
    counter.tiles_put = 0

    embedding = counted.run(sample_slide)

    assert counter.tiles_put == undisturbed.tiles - kept
    assert counted.progress[2] == ("encode_tiles", kept, undisturbed.tiles)
    assert embedding.tensors["slide_tokens"].tobytes() == undisturbed.tokens
    assert features_bytes(counted.features_path) == undisturbed.features


def test_no_tile_is_encoded_again_after_a_death_in_the_slide_encoder(
    counted: Job, counter: CountingBatcher, sample_slide: Path, undisturbed: Undisturbed
) -> None:
    whole = counted.encoders
    counted.encoders = dataclasses.replace(whole, stage=DyingStage(whole.stage))  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        counted.run(sample_slide)
    assert counter.tiles_put == undisturbed.tiles

    counted.encoders = whole
    embedding = counted.run(sample_slide)

    assert counter.tiles_put == undisturbed.tiles
    assert embedding.tensors["slide_tokens"].tobytes() == undisturbed.tokens
    assert features_bytes(counted.features_path) == undisturbed.features


def test_a_store_that_takes_no_parts_does_not_fail_the_encode(
    counted: Job, sample_slide: Path, undisturbed: Undisturbed
) -> None:
    counted.parts.full = True

    assert counted.run(sample_slide).tensors["slide_tokens"].tobytes() == undisturbed.tokens


def test_slides_that_are_encoded_at_once_are_as_if_alone(
    tmp_path: Path, patient: Encoders, sample_slide: Path, undisturbed: Undisturbed
) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    jobs = [Job(folder, patient) for folder in folders]

    with ThreadPoolExecutor(3) as threads:
        embeddings = list(threads.map(lambda job: job.run(sample_slide), jobs))

    assert {features_bytes(job.features_path) for job in jobs} == {undisturbed.features}
    assert {embedding.tensors["slide_tokens"].tobytes() for embedding in embeddings} == {undisturbed.tokens}
    assert {features_bytes(job.features_path) for job in jobs} == {undisturbed.features}


class WatchedStage:
    """Notes when two slides are encoded in it at once."""

    def __init__(self, stage: SlideStage[Any]) -> None:
        self._stage, self.read = stage, stage.read
        self._inside = threading.Semaphore(1)

    def encode(self, read: ReadTiles, ask: Callable[[], None]) -> Tensors:
        assert self._inside.acquire(blocking=False), "one slide at a time"
        try:
            return self._stage.encode(read, ask)
        finally:
            self._inside.release()


def test_one_slide_is_in_the_slide_encoder_at_a_time(tmp_path: Path, patient: Encoders, sample_slide: Path) -> None:
    watched = dataclasses.replace(patient, stage=WatchedStage(patient.stage))  # type: ignore[arg-type]
    jobs = [Job(tmp_path, watched) for _ in range(3)]
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda job: job.run(sample_slide), jobs))


def test_a_slide_that_waits_for_the_slide_encoder_can_be_cancelled(
    counted: Job, sample_slide: Path, undisturbed: Undisturbed
) -> None:
    turn = counted.encoders.slide_turn
    with ThreadPoolExecutor(1) as threads, turn:
        running = threads.submit(counted.run, sample_slide)
        while ("encode_tiles", undisturbed.tiles, undisturbed.tiles) not in counted.progress:
            assert not running.done()
            time.sleep(0.01)
        counted.cancelled.set()
        with pytest.raises(EncodeCancelled):
            running.result()


def test_the_caller_is_told_which_reader_opened_the_slide(job: Job, sample_slide: Path) -> None:
    job.run(sample_slide)

    assert job.opened == [("fast_tiff", "eligible")]
