"""From a features file to an embedding: the same numbers as from the pixels that made it."""

import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from features_files import COORDS, TRIDENT_ATTRIBUTES, tile_features, write_hdf5, write_torch

from encoders.caller import Caller
from encoders.embedding_file import from_bytes, to_bytes
from encoders.encoder_id import encoder_id
from encoders.errors import DeviceLost, DeviceOutOfMemory, EncodeCancelled, EncoderOverflowed, UnusableFeatures
from encoders.features_file import StoredFacts, read_facts, read_features
from encoders.pipeline import Encoders, encode_slide, load_encoders
from encoders.slide_encoder.encode import SlideEncoder
from encoders.slide_stages.longnet_pool import LongnetPoolStage
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.types import SlideEmbedding, SlideFile, Stage
from model_store.installed import InstalledModel

SLIDE_ID = "ab" * 32


@pytest.fixture(scope="module")
def encoders(demo_model: InstalledModel) -> Encoders:
    return load_encoders(demo_model, "cpu")


def longnet_of(encoders: Encoders) -> SlideEncoder:
    assert isinstance(encoders.stage, LongnetPoolStage)
    return encoders.stage.encoder


def encode(path: Path, encoders: Encoders, features_path: Path, sha256: str | None = None) -> SlideEmbedding:
    stages: list[Stage] = []
    embedding = encode_slide(
        SlideFile(SLIDE_ID, path, sha256),
        encoders,
        mpp_override=None,
        limits=ReaderLimits(),
        features_path=features_path,
        caller=Caller(lambda stage, done, total: stages.append(stage)),
    )
    assert "encode_tiles" not in stages or sha256 is None
    return embedding


def test_a_slides_own_features_give_its_own_embedding(tmp_path: Path, encoders: Encoders, sample_slide: Path) -> None:
    from_pixels = encode(sample_slide, encoders, tmp_path / "a.h5")

    from_features = encode(tmp_path / "a.h5", encoders, tmp_path / "b.h5")

    assert np.array_equal(from_features.tensors["slide_tokens"], from_pixels.tensors["slide_tokens"])
    assert from_features.tile_count == from_pixels.tile_count
    assert (from_features.mpp_source, from_pixels.mpp_source) == ("features", "property")
    first, second = read_features(tmp_path / "a.h5"), read_features(tmp_path / "b.h5")
    assert np.array_equal(first.features, second.features)
    assert {**vars(first.plan), "coords": None} == {**vars(second.plan), "coords": None}


def test_the_order_of_the_rows_in_the_file_does_not_matter(tmp_path: Path, encoders: Encoders) -> None:
    shuffled = write_hdf5(tmp_path / "a.h5", **TRIDENT_ATTRIBUTES)
    order = np.lexsort((COORDS[:, 0], COORDS[:, 1]))
    ordered = write_hdf5(tmp_path / "b.h5", tile_features()[order], COORDS[order], **TRIDENT_ATTRIBUTES)

    tokens = [
        encode(path, encoders, tmp_path / f"{path.stem}-out.h5").tensors["slide_tokens"] for path in (shuffled, ordered)
    ]

    assert np.array_equal(*tokens)


def test_what_tridents_file_says_is_kept_and_nothing_else(tmp_path: Path, encoders: Encoders) -> None:
    path = write_hdf5(tmp_path / "a.h5", **TRIDENT_ATTRIBUTES)

    embedding = encode(path, encoders, tmp_path / "out.h5")

    assert embedding.tile_count == 4
    assert read_facts(tmp_path / "out.h5") == StoredFacts(2048, 1536, None, None)
    with h5py.File(tmp_path / "out.h5", "r") as file:
        assert set(file["coords"].attrs) == set(TRIDENT_ATTRIBUTES) - {"name", "savetodir"}
        assert set(file.attrs) == {"width", "height"}
    assert b"TCGA-XX" not in (tmp_path / "out.h5").read_bytes()


def test_attached_features_have_an_id_of_their_own(tmp_path: Path, encoders: Encoders) -> None:
    path = write_hdf5(tmp_path / "a.h5", **TRIDENT_ATTRIBUTES)

    attached = encode(path, encoders, tmp_path / "out.h5", "cd" * 32)

    assert attached.encoder_id == encoder_id(encoders.model, None, "cd" * 32) != encoder_id(encoders.model)


def test_slide_features_become_the_embedding_without_a_features_file(tmp_path: Path, encoders: Encoders) -> None:
    tokens = torch.randn(1, 32, 96).half()

    embedding = encode(write_torch(tmp_path / "a.pt", tokens), encoders, tmp_path / "out.h5")

    assert np.array_equal(embedding.tensors["slide_tokens"], tokens[0].numpy())
    assert embedding.tile_count == 0
    assert from_bytes(to_bytes(embedding)).mpp_source == "features"
    assert not (tmp_path / "out.h5").exists()


def test_features_that_the_slide_encoder_overflows_on_are_blamed_and_not_the_manifest(
    tmp_path: Path, encoders: Encoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(*_: object) -> None:
        raise EncoderOverflowed("use another dtype in its manifest")

    monkeypatch.setattr(longnet_of(encoders), "encode_rows", overflow)

    with pytest.raises(UnusableFeatures, match="overflows on these features, whose largest value is"):
        encode(write_hdf5(tmp_path / "a.h5", **TRIDENT_ATTRIBUTES), encoders, tmp_path / "out.h5")


class CancelledAtLook(threading.Event):
    """Set from the look of that number on; counts looks."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.looks, self._number = 0, number

    def is_set(self) -> bool:
        self.looks += 1
        return self.looks >= self._number


def test_an_encode_from_features_stops_wherever_it_is_cancelled(tmp_path: Path, encoders: Encoders) -> None:
    path = write_hdf5(tmp_path / "a.h5", **TRIDENT_ATTRIBUTES)

    def encode_until(look: int) -> CancelledAtLook:
        cancelled = CancelledAtLook(look)
        encode_slide(
            SlideFile(SLIDE_ID, path, "1" * 64),
            encoders,
            mpp_override=None,
            limits=ReaderLimits(),
            features_path=tmp_path / "out.h5",
            caller=Caller(cancelled=cancelled),
        )
        return cancelled

    looks = encode_until(10**9).looks
    assert looks > 20  # in every layer several, not only between the stages

    for look in (1, 2, looks // 2, looks):
        with pytest.raises(EncodeCancelled):
            encode_until(look)
    assert encode_until(10**9).looks == looks  # nothing of a stopped run is left in the model


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), DeviceLost),
        (torch.OutOfMemoryError("CUDA out of memory"), DeviceOutOfMemory),
    ],
)
def test_a_device_that_fails_on_given_features_is_told_as_on_pixels(
    tmp_path: Path, encoders: Encoders, monkeypatch: pytest.MonkeyPatch, error: Exception, ours: type[Exception]
) -> None:
    path = write_hdf5(tmp_path / "a.h5", **TRIDENT_ATTRIBUTES)

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(longnet_of(encoders)._model, "forward", fail)

    with pytest.raises(ours):
        encode(path, encoders, tmp_path / "out.h5")
    assert encoders.slide_turn.acquire(blocking=False), "the next slide has its turn"
    encoders.slide_turn.release()
