"""Children that lie about a features file: the parent raises ReaderDied, keeps its memory, and lives."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lying_child import frame, lying_command
from untrained_model import untrained_manifest

from encoders.errors import ReaderDied, UnusableFeatures
from encoders.precomputed.features_process import read_given_features
from encoders.precomputed.given_features import GivenFeatures
from encoders.tiling.isolation.reader_limits import ReaderLimits

LIMITS = ReaderLimits(deadline_s=30, max_tiles=100)
TOKENS = np.ones((32, 96), dtype="<f4").tobytes()
OPENED = {
    "reply": "features_opened",
    "rows": 32,
    "columns": 96,
    "has_coords": False,
    "statements": {},
    "degraded": [],
}
TILES = {**OPENED, "rows": 1, "columns": 192, "has_coords": True, "statements": {"patch_size_level0": 256}}
ROWS = {"reply": "rows", "first": 0, "count": 32}
Liar = Callable[..., GivenFeatures]


@pytest.fixture
def read_liar(tmp_path: Path) -> Liar:
    def read(*frames: bytes, waits: bool = True) -> GivenFeatures:
        command = lying_command(tmp_path, *frames, waits=waits)
        return read_given_features(Path("unread"), untrained_manifest(), LIMITS, command=command)

    return read


@pytest.mark.parametrize(
    "reply",
    [
        b"\xff" * 64,
        frame(b"{}"),
        frame({"reply": "opened", "vendor": "aperio"}),
        frame({"reply": "failed", "code": "internal_error", "detail": "a code that no file has"}),
        frame({**OPENED, "rows": 0}),
        frame({**OPENED, "rows": 101}),
        frame({**OPENED, "columns": 10**6}),
        frame({**OPENED, "extra": 1}),
        frame({**OPENED, "statements": {"patch_size": -1}}),
        frame({**OPENED, "statements": {"mpp_source": "../../etc"}}),
        frame(json.dumps({**OPENED, "statements": {"mpp": float("nan")}}).encode()),
        frame(OPENED, b"an unasked body!"),
        frame(TILES),
        frame(TILES, bytes(32)),
        frame(TILES, bytes(10_000)),
    ],
)
def test_an_impossible_first_answer_is_reader_died(read_liar: Liar, reply: bytes) -> None:
    with pytest.raises(ReaderDied):
        read_liar(reply)


@pytest.mark.parametrize(
    "reply",
    [
        frame({**ROWS, "first": 1}, TOKENS),
        frame({**ROWS, "count": 31}, TOKENS),
        frame(ROWS, TOKENS[:-4]),
        frame(ROWS, TOKENS + b"\x00"),
        frame(OPENED),
    ],
)
def test_wrong_rows_are_reader_died(read_liar: Liar, reply: bytes) -> None:
    with pytest.raises(ReaderDied):
        read_liar(frame(OPENED), reply)


def test_a_child_that_ends_in_between_is_reader_died(read_liar: Liar) -> None:
    with pytest.raises(ReaderDied):
        read_liar(frame(OPENED), waits=False)


def test_values_that_are_not_finite_are_seen_by_the_parent(read_liar: Liar) -> None:
    with pytest.raises(UnusableFeatures, match="NaN"):
        read_liar(frame(OPENED), frame(ROWS, np.full((32, 96), np.inf, dtype="<f4").tobytes()))
