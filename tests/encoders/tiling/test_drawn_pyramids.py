"""Random pyramids against what was drawn: right to two grey levels, or refused with a reason, never silently wrong."""

from pathlib import Path

import pytest
from drawn_pyramids import LEVEL_FAULTS, Case, cases, draw, make_case, write
from pyramid_judge import LIMITS, TILING, judge

from encoders.errors import MissingMpp
from encoders.tiling.plan_slide import make_plan
from encoders.tiling.slide_readers.choose_reader import open_reader

CASES = 60
# From here on there is one of every kind.
FIRST_SEED = 6


def test_random_pyramids_are_right_or_refused(tmp_path: Path) -> None:
    judged = [judge(case, tmp_path / str(case.seed)) for case in cases(CASES, FIRST_SEED)]

    assert [(it.word, it.case) for it in judged if it.outcome == "wrong"] == []
    sound = [it for it in judged if it.case.fault == "none" and not it.case.sparse and it.case.colour == "as declared"]
    assert [(it.word, it.case) for it in sound if it.outcome == "refused"] == [], "padding and ratios are no reason"
    assert [it.case for it in sound if it.warnings] == []
    assert {it.outcome for it in judged if it.case.colour != "as declared"} == {"right", "refused"}
    # It must have been made of what it is about.
    assert {it.case.container for it in judged} == {"aperio", "generic-tiff", "dicom", "mirax"}
    assert {it.case.fault for it in judged} > set(LEVEL_FAULTS)
    assert sum(it.case.padded for it in judged) >= 10


def padded_case(**changes: object) -> Case:
    case = make_case(0)
    base = {"container": "generic-tiff", "width": 1000, "height": 780, "tile_px": 128, "mpp": 0.25, "padded": True}
    wanted = {"downsamples": (1.0, 2.0, 4.0, 8.0), "compression": "jpeg", "fault": "none", "sparse": False}
    return Case(**vars(case) | base | wanted | {"colour": "as declared"} | changes)


@pytest.mark.parametrize("container", ["generic-tiff", "aperio", "dicom"])
def test_levels_padded_to_whole_tiles_have_whole_scales(tmp_path: Path, container: str) -> None:
    case = padded_case(container=container)
    reader = open_reader(write(case, draw(case), tmp_path), LIMITS).reader

    assert [level.downsample for level in reader.levels] == [1, 2, 4, 8]
    assert reader.facts.warnings == ()


@pytest.mark.parametrize("fault", LEVEL_FAULTS)
def test_a_level_that_shows_something_else_is_not_used_and_that_is_said(tmp_path: Path, fault: str) -> None:
    case = padded_case(container="aperio", padded=False, fault=fault)
    reader = open_reader(write(case, draw(case), tmp_path), LIMITS).reader

    kept = [1] if fault == "blank" else [1, 2, 4]
    assert [level.downsample for level in reader.levels] == kept
    assert {it.code for it in reader.facts.warnings} == {"level_not_believed"}
    assert make_plan(reader, TILING, None, LIMITS).warnings == reader.facts.warnings


def test_tags_ten_times_too_fine_are_not_believed(tmp_path: Path) -> None:
    case = padded_case(padded=False, fault="ten times too fine", mpp=0.5)
    reader = open_reader(write(case, draw(case), tmp_path), LIMITS).reader

    with pytest.raises(MissingMpp, match=r"0\.05 µm/px"):
        make_plan(reader, TILING, None, LIMITS)
