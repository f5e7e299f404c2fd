import threading
from pathlib import Path

import numpy as np
import pytest

from encoders.embedding_file import from_bytes, to_bytes
from encoders.encoder_id import encoder_id
from encoders.errors import EncodeCancelled, MissingMpp, UnreadableSlide
from encoders.features_file import read_features
from encoders.pipeline import Encoders, choose_device, encode_slide, load_encoders
from encoders.tiling.reader_process import ReaderLimits
from encoders.types import SlideEmbedding, SlideFile, Stage
from model_store.errors import ModelError
from model_store.installed import InstalledModel

LIMITS = ReaderLimits()


@pytest.fixture(scope="module")
def encoders(demo_model: InstalledModel) -> Encoders:
    return load_encoders(demo_model, "cpu")


class Job:
    """One encode with everything around it recorded."""

    def __init__(self, folder: Path, encoders: Encoders) -> None:
        self.features_path = folder / "features.h5"
        self.encoders = encoders
        self.progress: list[tuple[Stage, int, int]] = []
        self.cancelled = threading.Event()
        self.cancel_after: tuple[Stage, int] | None = None

    def note(self, stage: Stage, done: int, total: int) -> None:
        self.progress.append((stage, done, total))
        if self.cancel_after == (stage, done):
            self.cancelled.set()

    def run(self, path: Path, mpp: float | None = None) -> SlideEmbedding:
        return encode_slide(
            SlideFile("ab" * 32, path),
            self.encoders,
            mpp_override=mpp,
            limits=LIMITS,
            features_path=self.features_path,
            on_progress=self.note,
            cancelled=self.cancelled,
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
    assert np.array_equal(embedding.tensors["slide_tokens"], job.encoders.slide.encode(features))
    assert from_bytes(to_bytes(embedding)).created_at == embedding.created_at


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


@pytest.mark.parametrize("stage", ["tile", "encode_tiles", "encode_slide"])
def test_cancelling_stops_before_the_next_batch(job: Job, sample_slide: Path, stage: Stage) -> None:
    job.cancel_after = (stage, 0)
    if stage == "encode_slide":  # too late: this stage is one step
        assert job.run(sample_slide).tile_count > 0
        return

    with pytest.raises(EncodeCancelled):
        job.run(sample_slide)

    assert ("encode_slide", 0, 1) not in job.progress
    assert not job.features_path.exists()


def test_a_device_that_is_not_there_is_a_model_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    assert choose_device("auto").type == "cpu"
    with pytest.raises(ModelError, match="no CUDA device"):
        choose_device("cuda:0")
