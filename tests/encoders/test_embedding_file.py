import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save

from encoders.embedding_file import from_bytes, to_bytes
from encoders.errors import StoredFileDamaged
from encoders.types import SlideEmbedding

TOKENS = np.random.default_rng(0).standard_normal((32, 96)).astype(np.float16)
EMBEDDING = SlideEmbedding(
    slide_id="ab" * 32,
    encoder_id="0123456789abcdef",
    tensors={"slide_tokens": TOKENS, "region_mask": np.array([True, False])},
    tile_count=412,
    mpp_source="override",
    created_at="2026-11-21T12:00:00+00:00",
)
METADATA = {
    "format_version": "1",
    "slide_id": "ab" * 32,
    "encoder_id": "0123456789abcdef",
    "tile_count": "412",
    "mpp_source": "property",
    "created_at": "2026-11-21T12:00:00Z",
}


def test_what_is_written_is_read_again() -> None:
    again = from_bytes(to_bytes(EMBEDDING))

    assert replace(again, tensors={}) == replace(EMBEDDING, tensors={})
    assert set(again.tensors) == {"slide_tokens", "region_mask"}
    for name, tensor in EMBEDDING.tensors.items():
        assert again.tensors[name].dtype == tensor.dtype
        assert np.array_equal(again.tensors[name], tensor)


def test_a_strided_tensor_is_written_by_value() -> None:
    strided = replace(EMBEDDING, tensors={"slide_tokens": TOKENS.T})

    assert np.array_equal(from_bytes(to_bytes(strided)).tensors["slide_tokens"], TOKENS.T)


@pytest.mark.parametrize("size", [0, 4, 8, 40, 300, -1])
def test_a_cut_file_is_damaged(size: int) -> None:
    with pytest.raises(StoredFileDamaged):
        from_bytes(to_bytes(EMBEDDING)[:size])


@pytest.mark.parametrize("data", [b"\x80\x04K\x01.", b"\xff" * 100, b"\x93NUMPY" + b"\x00" * 64, b"\x00" * 64])
def test_other_files_are_damaged(data: bytes) -> None:
    with pytest.raises(StoredFileDamaged):
        from_bytes(data)


@pytest.mark.parametrize(
    "changed",
    [
        {"format_version": "2"},
        {"slide_id": "AB" * 32},
        {"slide_id": "../" * 20},
        {"encoder_id": "short"},
        {"tile_count": "0"},
        {"tile_count": "-1", "mpp_source": "features"},
        {"tile_count": "many"},
        {"mpp_source": "guessed"},
        {"created_at": "yesterday"},
        {"sha256": "0" * 64},
    ],
)
def test_wrong_metadata_is_damaged(changed: dict[str, str]) -> None:
    assert from_bytes(save({"slide_tokens": TOKENS}, METADATA)).tile_count == 412

    with pytest.raises(StoredFileDamaged):
        from_bytes(save({"slide_tokens": TOKENS}, {**METADATA, **changed}))


@pytest.mark.parametrize("missing", sorted(METADATA))
def test_missing_metadata_is_damaged(missing: str) -> None:
    with pytest.raises(StoredFileDamaged):
        from_bytes(save({"slide_tokens": TOKENS}, {k: v for k, v in METADATA.items() if k != missing}))


def test_a_file_without_metadata_is_damaged() -> None:
    with pytest.raises(StoredFileDamaged):
        from_bytes(save({"slide_tokens": TOKENS}))


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"slide_tokens": np.full((2, 2), np.nan, dtype=np.float16)},
        {"slide_tokens": np.full((2, 2), np.inf, dtype=np.float16)},
        {"slide_tokens": np.zeros((0, 96), dtype=np.float16)},
        {"Slide Tokens": TOKENS},
    ],
)
def test_what_could_not_be_read_is_not_written(tensors: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError):
        to_bytes(replace(EMBEDDING, tensors=tensors))


def test_the_header_holds_nothing_but_the_contract() -> None:
    data = to_bytes(EMBEDDING)

    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])

    assert set(header) == {"__metadata__", "slide_tokens", "region_mask"}
    assert set(header["__metadata__"]) == {*METADATA, "sha256"}


def test_no_flipped_bit_gets_through() -> None:
    data = to_bytes(EMBEDDING)
    header_end = 8 + int.from_bytes(data[:8], "little")
    written = from_bytes(data)

    # Every byte of the header, where a digit of `tile_count` is as good as another, and some of the numbers.
    for position in [*range(header_end), *range(header_end, len(data), 97)]:
        flipped = bytearray(data)
        flipped[position] ^= 1
        try:
            read = from_bytes(bytes(flipped))
        except StoredFileDamaged:
            continue
        # A space behind the header, or the name `sha256` itself: what counts is untouched.
        assert replace(read, tensors={}) == replace(written, tensors={})
        assert all(np.array_equal(read.tensors[name], tensor) for name, tensor in written.tensors.items())


def test_a_file_from_before_there_was_a_digest_and_one_of_a_newer_release_are_read() -> None:
    for more in ({}, {"surprise": "1"}):
        assert np.array_equal(
            from_bytes(save({"slide_tokens": TOKENS}, METADATA | more)).tensors["slide_tokens"], TOKENS
        )
