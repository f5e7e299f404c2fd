"""The hierarchical kind, killed wherever it may be: what is kept is not made again, and the result is the same."""

import numpy as np
import pytest
from hierarchical_toys import (
    DrawnRegions,
    read_drawn,
    same,
)
from parts_in_memory import PartsInMemory

from encoders.caller import Caller
from encoders.errors import EncodeCancelled
from encoders.hierarchical import region_parts
from encoders.slide_stages.hierarchical import HierarchicalStage
from encoders.types import Stage


@pytest.mark.parametrize("killed_at", [0.5, 0.9])
def test_a_killed_worker_goes_on_behind_its_last_region(
    small: HierarchicalStage, killed_at: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(region_parts, "_EVERY_S", 0.0)
    parts, regions = PartsInMemory(), 10
    at_kill: dict[str, bytes] = {}

    def look(stage: Stage, done: int, _: int) -> None:
        if stage == "encode_regions" and done == regions * killed_at:
            at_kill.update(parts.stored)  # what a kill leaves: nothing is tidied up

    whole = read_drawn(small, DrawnRegions(regions, small.spec.regions), Caller(look, parts=parts))
    left, reader = PartsInMemory(), DrawnRegions(regions, small.spec.regions)
    left.stored = at_kill
    first: list[int] = []
    resumed = read_drawn(small, reader, Caller(lambda _, done, __: first.append(done), parts=left))

    assert at_kill
    assert first[2] == regions * killed_at, "progress goes on where it was"
    assert reader.drawn == regions - regions * killed_at, "nothing that was kept is read again"
    assert same(resumed, whole)
    assert np.array_equal(small.encode(resumed)["slide_tokens"], small.encode(whole)["slide_tokens"])


def test_killed_in_the_projector_no_region_is_encoded_again(
    small: HierarchicalStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = PartsInMemory()
    whole = read_drawn(small, DrawnRegions(6, small.spec.regions), Caller(parts=parts))

    def killed() -> None:
        raise EncodeCancelled("killed")

    with pytest.raises(EncodeCancelled):
        small.encode(whole, killed)
    reader = DrawnRegions(6, small.spec.regions)
    resumed = read_drawn(small, reader, Caller(parts=parts))

    assert reader.drawn == 0
    assert np.array_equal(small.encode(resumed)["slide_tokens"], small.encode(whole)["slide_tokens"])


@pytest.mark.parametrize("harm", ["cut", "changed", "of another plan", "of another model", "behind a gap"])
def test_a_part_that_does_not_fit_is_encoded_again(
    small: HierarchicalStage, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(region_parts, "_EVERY_S", 0.0)
    parts = PartsInMemory()
    whole = read_drawn(small, DrawnRegions(3, small.spec.regions), Caller(parts=parts))
    name = sorted(parts.stored)[0]
    content = parts.stored[name]
    stage = small
    if harm == "cut":
        parts.stored[name] = content[:-9]
    elif harm == "changed":
        parts.stored[name] = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    elif harm == "behind a gap":
        del parts.stored[name]
    reader = DrawnRegions(4 if harm == "of another plan" else 3, stage.spec.regions)
    plan = reader.plan(stage.spec.regions, None)
    spec = stage.spec
    if harm == "of another model":
        spec = spec.model_copy(update={"vit4k": spec.vit4k.model_copy(update={"embed_dim": 6})})

    kept = region_parts.load_regions(parts, plan, spec)

    assert kept == []
    if harm in ("cut", "changed", "behind a gap"):
        assert same(read_drawn(stage, reader, Caller(parts=parts)), whole)


def test_a_store_that_takes_nothing_stops_nobody(small: HierarchicalStage) -> None:
    parts = PartsInMemory()
    parts.full = True

    made = read_drawn(small, DrawnRegions(3, small.spec.regions), Caller(parts=parts))

    assert made.tile_count == 3
    assert not parts.stored
    assert parts.writes
