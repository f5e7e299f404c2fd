"""Random pyramids against what was drawn: right to two grey levels, or refused with a reason, never silently wrong."""

from pathlib import Path

import pydicom
import pytest
from drawn_pyramids import LEVEL_FAULTS, Case, cases, draw, make_case, make_other_case, other_cases, write
from pyramid_judge import LIMITS, TILING, judge

from encoders.errors import MissingMpp, UnsupportedFormat
from encoders.tiling.plan_slide import make_plan
from encoders.tiling.repeated_levels import repeated_levels
from encoders.tiling.slide_readers.choose_reader import open_reader

CASES, OTHER_CASES = 60, 16
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


def test_scanners_other_formats_are_right_or_refused(tmp_path: Path) -> None:
    judged = [judge(case, tmp_path / str(case.seed)) for case in other_cases(OTHER_CASES)]

    assert [(it.word, it.case) for it in judged if it.outcome == "wrong"] == []
    sound = [it for it in judged if it.case.fault == "none" and it.case.colour == "as declared"]
    assert [(it.word, it.case) for it in sound if it.warnings] == []
    # Of what is sparse tissue may be missing, which is refused.
    assert [(it.word, it.case) for it in sound if it.outcome != "right" and not it.case.sparse] == []
    assert {it.case.container for it in sound} == {"scn", "philips", "ndpi", "vms", "dicom"}


@pytest.mark.parametrize(
    "case",
    [
        make_case(100_003),  # another slide's level, in false colours without texture
        make_case(100_300_376),  # a level squeezed by a fifth, and one blot of tissue on it
        make_other_case(100_300_081),  # a map of another slide, and its reductions
    ],
    ids=lambda it: str(it.seed),
)
def test_levels_that_once_passed_for_the_slides_own_do_so_no_more(tmp_path: Path, case: Case) -> None:
    found = judge(case, tmp_path / "slide")

    assert found.outcome == "right", found.word
    assert found.warnings


def other_case(container: str, **changes: object) -> Case:
    base = padded_case(padded=container == "philips", tile_px=128, width=1024, height=768, downsamples=(1.0, 2.0, 4.0))
    vms = {"downsamples": (1.0, 16.0)} if container == "vms" else {}
    return Case(**vars(base) | {"container": container} | vms | changes)


# What becomes of each, and a word of the refusal or which doubt.
OTHER: list[tuple[str, dict[str, object], str, str]] = [
    ("scn", {}, "right", ""),
    ("scn", {"sparse": True}, "right", ""),
    ("scn", {"padded": True}, "right", "level_not_believed"),
    ("scn", {"fault": "blank"}, "right", "level_not_believed"),
    ("scn", {"fault": "shifted"}, "right", "level_not_believed"),
    ("scn", {"colour": "ycbcr called rgb"}, "refused", "colour space"),
    ("philips", {}, "right", ""),
    ("philips", {"sparse": True}, "right", ""),
    ("philips", {"fault": "other slide"}, "right", "level_not_believed"),
    ("philips", {"fault": "macro"}, "right", "level_not_believed"),
    ("philips", {"colour": "one tile of another encoder"}, "refused", "colour space"),
    ("ndpi", {}, "right", ""),
    ("ndpi", {"mpp": 0.5}, "right", ""),
    ("ndpi", {"fault": "other slide"}, "right", "level_not_believed"),
    # The stream is what Hamamatsu's is, whatever the tag says.
    ("ndpi", {"colour": "ycbcr called rgb"}, "right", ""),
    ("ndpi", {"colour": "one tile of another encoder"}, "right", ""),
    ("dicom", {"sparse": True}, "right", ""),
    ("dicom", {"sparse": True, "padded": True}, "right", ""),
    ("vms", {}, "right", ""),
    ("vms", {"fault": "shifted"}, "right", "level_not_believed"),
]


@pytest.mark.parametrize(("container", "changes", "outcome", "word"), OTHER)
def test_a_format_of_a_scanner_is_read_as_drawn_or_refused(
    tmp_path: Path, container: str, changes: dict[str, object], outcome: str, word: str
) -> None:
    case = other_case(container, **changes)
    found = judge(case, tmp_path / "slide")

    assert (found.outcome, bool(found.warnings)) == (outcome, outcome == "right" and bool(word)), found.word
    if outcome == "refused":
        assert word in found.word


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


def test_levels_padded_to_the_size_of_a_finer_one_are_left_out(tmp_path: Path) -> None:
    """1/4 and 1/8 of 380 px are both one tile of 128: OpenSlide takes no two files of a size."""
    case = padded_case(container="dicom", width=380, height=370)
    path = write(case, draw(case), tmp_path)
    files = {it.name: it for it in path.parent.iterdir()}

    with pytest.raises(UnsupportedFormat, match="levels of one size"):
        open_reader(path, LIMITS)
    assert repeated_levels(files) == {"l3.dcm": "l2.dcm"}
    files["l3.dcm"].unlink()
    assert [level.downsample for level in open_reader(path, LIMITS).reader.levels] == [1, 2, 4]


def test_files_of_one_size_and_one_spacing_are_for_the_sender_to_choose_from(tmp_path: Path) -> None:
    """Focal planes and optical paths may come so."""
    case = padded_case(container="dicom", downsamples=(1.0,))
    path = write(case, draw(case), tmp_path)
    other = pydicom.dcmread(path)
    other.file_meta.MediaStorageSOPInstanceUID = other.SOPInstanceUID = pydicom.uid.generate_uid()
    other.save_as(path.with_name("l1.dcm"))

    assert repeated_levels({it.name: it for it in path.parent.iterdir()}) == {}
    with pytest.raises(UnsupportedFormat, match="focal planes"):
        open_reader(path, LIMITS)


def test_tags_ten_times_too_fine_are_not_believed(tmp_path: Path) -> None:
    case = padded_case(padded=False, fault="ten times too fine", mpp=0.5)
    reader = open_reader(write(case, draw(case), tmp_path), LIMITS).reader

    with pytest.raises(MissingMpp, match=r"0\.05 µm/px"):
        make_plan(reader, TILING, None, LIMITS)


def test_what_a_padded_level_shows_beyond_the_slide_is_not_asked_for(tmp_path: Path) -> None:
    """A seam of padding inside the slide and much of it beyond: one white area, of which level 0 has the seam alone."""
    found = judge(make_case(100_300_410), tmp_path / "slide")

    assert (found.outcome, found.word, found.warnings) == ("right", "", 0)


def test_an_area_of_leica_that_begins_inside_a_tile_lies_on_its_own_pixels(tmp_path: Path) -> None:
    """The canvas is no multiple of the levels' scale, so that OpenSlide's positions are between pixels."""
    sides = {"width": 655, "height": 1133, "downsamples": (1.0, 2.0, 4.0)}
    found = judge(padded_case(container="scn", **sides, tile_px=64, padded=False, sparse=True), tmp_path / "slide")

    assert found.outcome == "right", found.word
