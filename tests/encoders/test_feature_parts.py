"""Features kept in parts: what is believed when they come back, and when which rows are written."""

import dataclasses
import hashlib
import itertools
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from parts_in_memory import PartsInMemory
from safetensors.numpy import save

from encoders.feature_parts import (
    NO_PARTS,
    PART_TILES,
    PartWriter,
    load_features,
    part_bytes,
    part_name,
    plan_digest,
)
from encoders.types import SlideWarning, TilePlan

WIDTH = 5


@pytest.fixture
def parts() -> PartsInMemory:
    return PartsInMemory()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, as the writer sees it; it stands still until a test changes it."""
    now = [100.0]
    monkeypatch.setattr("encoders.feature_parts.time.monotonic", lambda: now[0])
    return now


def plan_of(plan: TilePlan, tiles: int) -> TilePlan:
    return dataclasses.replace(plan, coords=np.arange(2 * tiles, dtype=np.int64).reshape(tiles, 2))


@pytest.fixture
def ten(plan: TilePlan) -> TilePlan:
    return plan_of(plan, 10)


@pytest.fixture
def features() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((10, WIDTH)).astype(np.float32)


def keep(parts: PartsInMemory, plan: TilePlan, features: NDArray[np.float32], *spans: tuple[int, int]) -> None:
    for first, end in spans:
        parts.stored[part_name(first, end - first)] = part_bytes(plan_digest(plan), first, features[first:end])


def loaded(parts: PartsInMemory, plan: TilePlan, width: int = WIDTH) -> NDArray[np.float32]:
    """The rows that come back."""
    array = np.full((len(plan.coords), width), np.nan, dtype=np.float32)
    count = load_features(parts, plan, array)
    assert np.isnan(array[count:]).all()
    return array[:count]


def same(rows: NDArray[np.float32], features: NDArray[np.float32], count: int) -> bool:
    return rows.tobytes() == features[:count].tobytes()


@pytest.mark.parametrize(
    ("spans", "count"),
    [
        ([], 0),
        ([(0, 4)], 4),
        ([(0, 4), (4, 10)], 10),
        ([(0, 4), (5, 10)], 4),
        ([(1, 10)], 0),
        # Two workers had the slide at once and cut it differently.
        ([(0, 4), (0, 6), (2, 5), (4, 8), (6, 7)], 8),
    ],
)
def test_the_rows_from_the_first_tile_on_come_back_bit_for_bit(
    parts: PartsInMemory, ten: TilePlan, features: NDArray[np.float32], spans: list[tuple[int, int]], count: int
) -> None:
    keep(parts, ten, features, *spans)

    assert len(loaded(parts, ten)) == count
    assert same(loaded(parts, ten), features, count)


@pytest.mark.parametrize("change", [{"level": 1}, {"mpp": 0.26}, {"read_px": 511}, {"width": 2_001}, {"mpp": None}])
def test_parts_of_another_plan_are_not_believed(
    parts: PartsInMemory, ten: TilePlan, features: NDArray[np.float32], change: dict[str, object]
) -> None:
    coords = ten.coords.copy()
    coords[9] += 1
    other = dataclasses.replace(ten, **(change if change != {"mpp": None} else {"coords": coords}))  # type: ignore[arg-type]
    keep(parts, other, features, (0, 10))

    assert len(loaded(parts, ten)) == 0


def labelled(plan: TilePlan, rows: NDArray[np.generic], name: str = "features", **changed: str) -> bytes:
    """A part of tiles 4 … 9, with a fault."""
    rows = np.ascontiguousarray(rows)
    labels = {"format_version": "1", "plan": plan_digest(plan), "first": "4", "count": "6"}
    labels["sha256"] = hashlib.sha256(rows.data).hexdigest()
    return save({name: rows}, labels | changed)


def with_a_flipped_bit(part: bytes) -> bytes:
    return part[:-1] + bytes([part[-1] ^ 1])


def with_nan(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    rows = rows.copy()
    rows[3, 2] = np.nan
    return rows


Damage = Callable[[TilePlan, NDArray[np.float32]], bytes]
DAMAGES: dict[str, Damage] = {
    "another format version": lambda plan, rows: labelled(plan, rows, format_version="2"),
    "other tiles than its name says": lambda plan, rows: labelled(plan, rows, first="3"),
    "one more label": lambda plan, rows: labelled(plan, rows, extra=""),
    "no labels": lambda plan, rows: save({"features": rows}),
    "another tensor": lambda plan, rows: labelled(plan, rows, name="rows"),
    "a row less": lambda plan, rows: labelled(plan, rows[1:]),
    "a column less": lambda plan, rows: labelled(plan, rows[:, 1:]),
    "another dtype": lambda plan, rows: labelled(plan, rows.astype(np.float64)),
    "no digest": lambda plan, rows: labelled(plan, rows).replace(b'"sha256"', b'"sha257"'),
    "a flipped bit": lambda plan, rows: with_a_flipped_bit(labelled(plan, rows)),
    "not finite": lambda plan, rows: labelled(plan, with_nan(rows)),
    "cut": lambda plan, rows: labelled(plan, rows)[:-1],
    "longer than a file": lambda plan, rows: b"\xff" * 40,
    "a list": lambda plan, rows: (2).to_bytes(8, "little") + b"[]",
    "empty": lambda plan, rows: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_ends_what_is_believed(
    parts: PartsInMemory, ten: TilePlan, features: NDArray[np.float32], damage: str
) -> None:
    keep(parts, ten, features, (0, 4), (4, 10))
    assert len(loaded(parts, ten)) == 10

    parts.stored[part_name(4, 6)] = DAMAGES[damage](ten, features[4:])

    assert same(loaded(parts, ten), features, 4)
    keep(parts, ten, features, (2, 7))  # whole, and says the same
    assert same(loaded(parts, ten), features, 7)


def test_names_that_are_no_parts_of_this_slide_are_skipped(
    parts: PartsInMemory, ten: TilePlan, features: NDArray[np.float32]
) -> None:
    keep(parts, ten, features, (0, 4))
    more = plan_of(ten, 20)
    parts.stored |= {
        "README": b"",
        "0-4.safetensors": b"",
        part_name(4, 16): part_bytes(plan_digest(more), 4, features),
    }

    assert len(loaded(parts, ten)) == 4


def test_names_sort_as_the_tiles_do() -> None:
    firsts = [0, 9, 10, 99, 100, 499_999]

    assert sorted(part_name(first, 1) for first in firsts) == [part_name(first, 1) for first in firsts]


def write_all(
    parts: PartsInMemory, plan: TilePlan, batch: int = 128, each: Callable[[], object] = lambda: None
) -> NDArray[np.float32]:
    features = np.random.default_rng(1).standard_normal((len(plan.coords), WIDTH)).astype(np.float32)
    with PartWriter(parts, plan, features, 0) as writer:
        for ready in itertools.chain(range(batch, len(features), batch), [len(features)]):
            each()
            writer.advance(ready)
    return features


def test_a_fast_encoder_writes_large_parts_and_the_last_rows(
    parts: PartsInMemory, plan: TilePlan, clock: list[float]
) -> None:
    tiles = plan_of(plan, 3 * PART_TILES + 5)

    features = write_all(parts, tiles)

    assert parts.writes == [
        *(part_name(first, PART_TILES) for first in (0, PART_TILES, 2 * PART_TILES)),
        part_name(3 * PART_TILES, 5),
    ]
    assert same(loaded(parts, tiles), features, len(features))


def test_a_slow_encoder_keeps_every_second_then_every_hundredth_of_its_time(
    parts: PartsInMemory, plan: TilePlan, clock: list[float]
) -> None:
    def tile_takes(seconds: float) -> None:
        clock[0] += seconds

    tiles = plan_of(plan, 10)
    write_all(parts, tiles, 1, lambda: tile_takes(0.5))
    assert parts.writes == [part_name(first, 2) for first in range(0, 10, 2)]

    parts.writes.clear()
    hours = plan_of(plan, 14_400)
    write_all(parts, hours, 1, lambda: tile_takes(1.0))
    assert len(parts.writes) < 700
    lost = [int(name[10:].split(".")[0]) for name in parts.writes]
    assert max(lost) <= 144 + 1


def test_the_encoder_does_not_wait_for_the_store(parts: PartsInMemory, plan: TilePlan, clock: list[float]) -> None:
    features = np.zeros((20 * PART_TILES, WIDTH), np.float32)
    parts.slow = True
    with PartWriter(parts, plan_of(plan, len(features)), features, 0) as writer:
        for ready in range(PART_TILES, 11 * PART_TILES, PART_TILES):
            writer.advance(ready)
        assert parts.writes == [part_name(0, PART_TILES)], "one write at a time"

        parts.catch_up()
        writer.advance(11 * PART_TILES)
        assert parts.writes[1:] == [part_name(PART_TILES, 8 * PART_TILES)], "what gathered, and no more than this"
        parts.slow = False
        parts.catch_up()

    assert parts.writes[2:] == [part_name(9 * PART_TILES, 2 * PART_TILES)]


def test_a_part_that_was_not_taken_is_written_again_with_the_next(
    parts: PartsInMemory, plan: TilePlan, clock: list[float]
) -> None:
    features = np.zeros((4 * PART_TILES, WIDTH), np.float32)
    parts.full = True
    with PartWriter(parts, plan_of(plan, len(features)), features, 0) as writer:
        writer.advance(PART_TILES)
        parts.full = False
        writer.advance(PART_TILES + 1)
        assert parts.writes == [part_name(0, PART_TILES)], "not at once"
        writer.advance(2 * PART_TILES)

    assert parts.writes[1:] == [part_name(0, 2 * PART_TILES)]


def test_a_store_that_takes_nothing_is_given_up_at_the_end(
    parts: PartsInMemory, plan: TilePlan, clock: list[float]
) -> None:
    parts.full = True

    write_all(parts, plan_of(plan, PART_TILES + 1))

    assert 1 <= len(parts.writes) <= 2
    assert parts.stored == {}


def test_what_is_ready_is_kept_when_the_encode_fails(parts: PartsInMemory, ten: TilePlan) -> None:
    features = np.ones((10, WIDTH), np.float32)

    def encode() -> None:
        with PartWriter(parts, ten, features, 0) as writer:
            writer.advance(7)
            raise OSError("the reader")

    with pytest.raises(OSError, match="the reader"):
        encode()

    assert same(loaded(parts, ten), features, 7)


def test_a_resumed_encode_writes_only_what_is_new(parts: PartsInMemory, ten: TilePlan) -> None:
    features = np.ones((10, WIDTH), np.float32)

    with PartWriter(parts, ten, features, 4) as writer:
        writer.advance(9)

    assert parts.writes == [part_name(4, 5)]


def test_a_library_user_keeps_nothing(ten: TilePlan) -> None:
    features = np.ones((10, WIDTH), np.float32)
    with PartWriter(NO_PARTS, ten, features, 0) as writer:
        writer.advance(10)

    assert load_features(NO_PARTS, ten, features) == 0


def test_doubts_about_a_slide_do_not_make_another_plan_of_it(plan: TilePlan) -> None:
    doubted = dataclasses.replace(plan, warnings=(SlideWarning("mpp_contradicted", "Two resolutions."),))

    assert plan_digest(doubted) == plan_digest(plan)
