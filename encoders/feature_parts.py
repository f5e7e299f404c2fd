"""Features in parts, kept while a slide is being encoded: a killed job goes on where it stopped, on any worker.

A part is a safetensors file named `<first tile>-<count>.safetensors`:

    features  float32 [count, D], the tiles `first … first + count - 1` in the plan's order
    metadata  format_version, plan (SHA-256 of the tile plan), first, count, sha256 (of the features)

Nothing in it is PHI: no name, no label, no pixels. Two workers that encode the same slide write the same numbers, so
parts may overlap and be written twice. Whatever does not fit the plan is ignored.
"""

import hashlib
import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from encoders.types import TilePlan

FORMAT_VERSION: Final = "1"
# With 1536 features a part of so many tiles is 6 MB, and the largest slide (500,000 tiles) has 490 of them.
PART_TILES: Final = 1_024
# What a store that is slower than the encoder gets at once: 50 MB.
_LARGEST_PART_TILES: Final = 8 * PART_TILES
# A slow encoder keeps what it has after this share of the time that it has spent: at most some 600 parts in four hours.
_WORTH_KEEPING: Final = 0.01
_AT_MOST_EVERY_S: Final = 1.0
_NAME: Final = re.compile(r"(\d{9})-(\d{1,9})\.safetensors")
# A safetensors file begins with the length of its JSON header, u64 little-endian.
_LENGTH_BYTES: Final = 8


class FeatureParts(Protocol):
    """Where the parts of one slide are. Nothing here raises: a part that is lost is encoded again."""

    def names(self) -> Sequence[str]:
        """The names of all parts that are there, in any order."""

    def read(self, name: str) -> bytes | None:
        """A part's bytes, None when it cannot be had."""

    def write(self, name: str, content: bytes) -> Future[bool]:
        """Begins to write or replace a part, which appears whole or not at all; the result is whether it did."""


class NoParts:
    """For whoever encodes in one go."""

    def names(self) -> Sequence[str]:
        """There are none."""
        return ()

    def read(self, name: str) -> bytes | None:
        """Nor this one."""
        return None

    def write(self, name: str, content: bytes) -> Future[bool]:
        """Forgets it; nobody will ask."""
        return _done(True)


NO_PARTS: Final = NoParts()


def plan_digest(plan: TilePlan) -> str:
    """Lower-case hex SHA-256 of everything in the plan: sizes, level, resolution and coordinates."""
    facts = plan.numbers()
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(plan.coords, dtype="<i8").data)
    return digest.hexdigest()


def part_name(first: int, count: int) -> str:
    """The name of the part that holds so many tiles from `first` on; names sort by tile."""
    return f"{first:09d}-{count}.safetensors"


def part_bytes(digest: str, first: int, rows: NDArray[np.float32]) -> bytes:
    """The file with the features `rows` [n, D] of the tiles from `first` on, of the plan with that digest."""
    metadata = _metadata(digest, first, len(rows))
    return safetensors_numpy.save({"features": rows}, {**metadata, "sha256": _sha256(rows)})


def load_features(parts: FeatureParts, plan: TilePlan, features: NDArray[np.float32]) -> int:
    """Fills the first rows of `features` [N, D] with those kept of this very plan; how many rows, 0 … N."""
    digest, done = plan_digest(plan), 0
    for first, count in spans(parts.names()):
        if first > done:
            break  # a gap: what lies behind it is encoded again
        if done < first + count <= len(features):
            rows = _rows(parts.read(part_name(first, count)), _metadata(digest, first, count), features.shape[1])
            if rows is not None:
                features[done : first + count] = rows[done - first :]
                done = first + count
    return done


class PartWriter:
    """Keeps rows of `features` [N, D] as they get ready, one write at a time; the encoder never waits for it.

    A part is due after PART_TILES new tiles, or after a second or a hundredth of the time spent on the slide, whichever
    is longer. A worker that is killed loses at most that and the write under way. What gets ready meanwhile waits in
    `features` itself and costs no memory; a part that the store did not take is written again with the next one.
    Leaving the block writes what is left, also after an error, and waits for it.
    """

    def __init__(self, parts: FeatureParts, plan: TilePlan, features: NDArray[np.float32], kept: int) -> None:
        self._parts = parts
        self._digest = plan_digest(plan)
        self._features = features
        # Rows that are written, that a write was begun for, and that there are.
        self._kept = self._begun = self._ready = kept
        self._writing: Future[bool] = _done(True)
        self._started_s = self._last_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._last_was_taken() and self._kept < self._ready:
            self._write()

    def advance(self, ready: int) -> None:
        """The first `ready` rows are there and stay as they are."""
        self._ready = ready
        if self._is_due() and self._writing.done():
            self._last_was_taken()
            self._write()

    def _is_due(self) -> bool:
        now = time.monotonic()
        patience_s = max(_AT_MOST_EVERY_S, _WORTH_KEEPING * (now - self._started_s))
        return self._ready - self._begun >= PART_TILES or now - self._last_s >= patience_s

    def _last_was_taken(self) -> bool:
        """Waits for the write under way."""
        taken = self._writing.result()
        if taken:
            self._kept = self._begun
        return taken

    def _write(self) -> None:
        first = self._kept
        rows = self._features[first : min(self._ready, first + _LARGEST_PART_TILES)]
        self._writing = self._parts.write(part_name(first, len(rows)), part_bytes(self._digest, first, rows))
        self._begun, self._last_s = first + len(rows), time.monotonic()


def spans(names: Iterable[str]) -> Iterator[tuple[int, int]]:
    """First tile and count of each part, by tile; other names are skipped."""
    found = (_NAME.fullmatch(name) for name in names)
    yield from sorted((int(match[1]), int(match[2])) for match in found if match)


def _metadata(digest: str, first: int, count: int) -> dict[str, str]:
    return {"format_version": FORMAT_VERSION, "plan": digest, "first": str(first), "count": str(count)}


def _rows(content: bytes | None, metadata: dict[str, str], width: int) -> NDArray[np.float32] | None:
    """The features in a part, None unless the part is what its metadata must say and every number is finite."""
    if content is None:
        return None
    try:
        end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
        stated = json.loads(content[_LENGTH_BYTES:end])["__metadata__"]
        sha256 = stated.pop("sha256")
        if stated != metadata:
            return None
        rows: NDArray[np.float32] = safetensors_numpy.load(content)["features"]
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError):
        return None
    is_sane = rows.dtype == np.float32 and rows.shape == (int(metadata["count"]), width)
    return rows if is_sane and sha256 == _sha256(rows) and np.isfinite(rows).all() else None


def _sha256(rows: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows).data).hexdigest()


def _done(kept: bool) -> Future[bool]:
    future: Future[bool] = Future()
    future.set_result(kept)
    return future
