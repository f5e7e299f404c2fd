"""A region's embedding is the slide stage's, over the stored features of its tiles and at the slide's coordinates."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from untrained_model import untrained_model

from encoders.caller import Caller
from encoders.encoder_id import encoder_id
from encoders.errors import EncodeCancelled, RegionsUnavailable, UnusableRegion
from encoders.features_file import read_features
from encoders.pipeline import Encoders, encode_slide, load_encoders
from encoders.regions.encode_region import DrawnRegion, encode_region
from encoders.regions.outline import Outline
from encoders.regions.stored_tiles import read_tile_places
from encoders.regions.tile_places import region_id
from encoders.slide_stages.tile_stage import Tiles
from encoders.tiling.isolation.reader_process import ReaderLimits
from encoders.types import SlideEmbedding, SlideFile
from synthetic.write_slide import write_sample_slide

SLIDE = "ab" * 32


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encoders]:
    with load_encoders(untrained_model(tmp_path_factory.mktemp("models")), "cpu") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def encoded(encoders: Encoders, tmp_path_factory: pytest.TempPathFactory) -> tuple[SlideEmbedding, Path]:
    folder = tmp_path_factory.mktemp("slide")
    write_sample_slide(folder / "a.svs", seed=1, width_px=2048, height_px=1536)
    embedding = encode_slide(
        SlideFile(SLIDE, folder / "a.svs"),
        encoders,
        mpp_override=None,
        limits=ReaderLimits(),
        features_path=folder / "features.h5",
        caller=Caller(),
    )
    return embedding, folder / "features.h5"


def drawn(features: Path, encoders: Encoders, outline: Outline) -> DrawnRegion:
    places, identity = read_tile_places(features), encoder_id(encoders.model)
    name = region_id(SLIDE, identity, places.coords[places.inside(outline)])
    return DrawnRegion(name, SLIDE, identity, outline)


def test_a_region_of_all_tiles_has_the_slides_rows_to_the_bit(
    encoders: Encoders, encoded: tuple[SlideEmbedding, Path]
) -> None:
    slide, features = encoded
    region = drawn(features, encoders, Outline.rectangle(0, 0, 4096, 4096))

    made = encode_region(region, encoders, features, Caller())

    np.testing.assert_array_equal(made.tensors["slide_tokens"], slide.tensors["slide_tokens"])
    assert (made.tile_count, made.mpp_source) == (slide.tile_count, slide.mpp_source)
    assert (made.slide_id, made.encoder_id, made.region_id) == (SLIDE, slide.encoder_id, region.region_id)


def test_a_region_keeps_the_slides_coordinates_and_encodes_no_tile(
    encoders: Encoders, encoded: tuple[SlideEmbedding, Path]
) -> None:
    _, features = encoded
    stored = read_features(features)
    outline = Outline.of([(900, 100), (2048, 500), (2000, 1536), (700, 1400)])
    chosen = read_tile_places(features).inside(outline)
    assert 16 <= len(chosen) < len(stored.features)
    whole = Tiles.of(stored)
    at_the_slides_place = Tiles(whole.features[chosen], whole.coords[chosen], whole.tile_px, whole.tile_px_level0)
    moved = Tiles(
        whole.features[chosen],
        whole.coords[chosen] - whole.coords[chosen].min(axis=0),
        whole.tile_px,
        whole.tile_px_level0,
    )
    [batcher] = [given.batcher for given in encoders.inputs.values()]
    busy_s = batcher.busy_s

    rows = encode_region(drawn(features, encoders, outline), encoders, features, Caller()).tensors["slide_tokens"]

    expected = encoders.stage.rows({"tiles": at_the_slides_place}, lambda: None).astype(np.float16)
    elsewhere = encoders.stage.rows({"tiles": moved}, lambda: None).astype(np.float16)
    np.testing.assert_array_equal(rows, expected)
    assert not np.array_equal(rows, elsewhere)
    assert batcher.busy_s == busy_s


def test_a_region_of_other_tiles_is_not_made(encoders: Encoders, encoded: tuple[SlideEmbedding, Path]) -> None:
    _, features = encoded
    region = drawn(features, encoders, Outline.rectangle(0, 0, 4096, 4096))
    smaller = DrawnRegion(region.region_id, SLIDE, region.encoder_id, Outline.rectangle(0, 0, 1500, 4096))

    with pytest.raises(UnusableRegion, match="draw it again"):
        encode_region(smaller, encoders, features, Caller())


def test_a_region_nobody_wants_any_more_ends(encoders: Encoders, encoded: tuple[SlideEmbedding, Path]) -> None:
    _, features = encoded
    caller = Caller()
    caller.cancelled.set()

    with pytest.raises(EncodeCancelled):
        encode_region(drawn(features, encoders, Outline.rectangle(0, 0, 4096, 4096)), encoders, features, caller)


def test_a_model_that_keeps_the_tiles_of_one_input_of_several_has_no_regions(
    encoders: Encoders, encoded: tuple[SlideEmbedding, Path]
) -> None:
    _, features = encoded
    twice = Encoders(encoders.model, {"a": encoders.inputs["tiles"], "b": encoders.inputs["tiles"]}, encoders.stage)

    with pytest.raises(RegionsUnavailable):
        encode_region(drawn(features, encoders, Outline.rectangle(0, 0, 4096, 4096)), twice, features, Caller())
