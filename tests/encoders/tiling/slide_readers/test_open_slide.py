from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
import tiff_draft as draft

from encoders.errors import SlideTooLarge, UnreadableSlide, UnsupportedFormat
from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.slide_readers.open_slide import OpenSlideReader
from encoders.tiling.slide_readers.slide_reader import Scale

LIMITS = ReaderLimits()


def test_facts_and_levels_are_the_files_own(sample_slide: Path) -> None:
    reader = OpenSlideReader(sample_slide, LIMITS)

    facts = reader.facts
    assert (facts.vendor, facts.width, facts.height) == ("aperio", 2048, 1536)
    assert (facts.mpp, facts.objective_power) == (0.5, 20.0)
    assert [(level.width, level.height, level.downsample) for level in reader.levels] == [
        (2048, 1536, 1.0),
        (512, 384, 4.0),
    ]


def test_pixels_equal_openslides_own_python_interface(shared_slides: Path) -> None:
    path = shared_slides / "cmu-1-small-region.svs"
    expected = np.asarray(openslide.OpenSlide(path).read_region((700, 900), 0, (300, 200)))

    pixels = OpenSlideReader(path, LIMITS).read_region(700, 900, 0, 300, 200)

    assert expected[..., 3].min() == 255
    assert np.array_equal(pixels, expected[..., :3])


def test_outside_the_slide_is_white_not_black(sample_slide: Path) -> None:
    pixels = OpenSlideReader(sample_slide, LIMITS).read_region(2048 - 16, 1536 - 16, 0, 64, 64)

    assert (pixels[16:, :] == 255).all()
    assert (pixels[:, 16:] == 255).all()
    assert pixels[:16, :16].max() < 255


def test_transparent_pixels_of_a_dicom_slide_are_white(shared_slides: Path) -> None:
    reader = OpenSlideReader(shared_slides / "highdicom_sm_image.dcm", LIMITS)

    assert (reader.read_region(50, 0, 0, 10, 50) == 255).all()


def test_a_damaged_rectangle_is_named_and_the_reader_lives_on(shared_slides: Path) -> None:
    reader = OpenSlideReader(shared_slides / "made_corrupt_zeros_tail.svs", LIMITS)

    with pytest.raises(UnreadableSlide, match=r"\(1000, 1250\) – \(1100, 1300\)"):
        reader.read_region(1000, 1250, 0, 100, 50)

    assert reader.read_region(0, 0, 0, 64, 64).mean() > 200
    assert reader.facts.width == 2220


def test_the_damaged_rectangle_is_clipped_to_the_slide(shared_slides: Path) -> None:
    reader = OpenSlideReader(shared_slides / "ospy_unreadable.svs", LIMITS)

    with pytest.raises(UnreadableSlide, match=r"\(0, 0\) – \(16, 16\)"):
        reader.read_region(0, 0, 0, 256, 256)


@pytest.mark.parametrize("name", ["histolab_broken.svs", "clam_CLAM1.tiff"])
def test_what_is_no_slide_is_an_unsupported_format_whatever_its_name(shared_slides: Path, name: str) -> None:
    with pytest.raises(UnsupportedFormat):
        OpenSlideReader(shared_slides / name, LIMITS)


def test_an_interrupted_upload_is_told_from_a_foreign_file(shared_slides: Path) -> None:
    with pytest.raises(UnreadableSlide, match="file is shorter than its directory says"):
        OpenSlideReader(shared_slides / "truncated.svs", LIMITS)


def test_an_unknown_compression_is_named(shared_slides: Path) -> None:
    with pytest.raises(UnsupportedFormat, match="method 52479 of TIFF, which is not read"):
        OpenSlideReader(shared_slides / "ospy_unopenable.tiff", LIMITS)


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSlide, match="not there any more"):
        OpenSlideReader(tmp_path / "gone.svs", LIMITS)


@pytest.mark.parametrize(
    ("limits", "text"),
    [(ReaderLimits(max_dimension_px=2_000), "2048 × 1536"), (ReaderLimits(max_levels=1), "2 levels")],
)
def test_a_slide_beyond_the_limits_is_refused_on_opening(sample_slide: Path, limits: ReaderLimits, text: str) -> None:
    with pytest.raises(SlideTooLarge, match=text):
        OpenSlideReader(sample_slide, limits)


def test_a_level_cut_by_a_pixel_keeps_its_whole_downsample(shared_slides: Path) -> None:
    levels = OpenSlideReader(shared_slides / "tcga-cr-7395-ts1.svs", LIMITS).levels

    assert [level.downsample for level in levels] == [1.0, 2.0]


def test_no_error_tells_the_files_name_or_path(shared_slides: Path) -> None:
    for name in ("histolab_broken.svs", "truncated.svs", "ospy_unopenable.tiff"):
        with pytest.raises((UnsupportedFormat, UnreadableSlide)) as caught:
            OpenSlideReader(shared_slides / name, LIMITS)
        assert Path(name).stem not in caught.value.detail
        assert str(shared_slides) not in caught.value.detail


def test_pixels_are_written_where_the_caller_wants_them(sample_slide: Path) -> None:
    reader = OpenSlideReader(sample_slide, LIMITS)
    batch = np.zeros((2, 64, 80, 3), dtype=np.uint8)

    given = reader.read_region(2048 - 40, 100, 0, 80, 64, batch[1])

    assert np.shares_memory(given, batch)
    assert np.array_equal(batch[1], reader.read_region(2048 - 40, 100, 0, 80, 64))
    assert not batch[0].any()


def test_a_reduced_region_is_the_mean_over_an_area(sample_slide: Path) -> None:
    reader = OpenSlideReader(sample_slide, LIMITS)
    whole = reader.read_region(100, 200, 0, 104, 64)

    reduced = reader.read_reduced(100, 200, 0, 101, 64, Scale(4, "area"))

    assert np.array_equal(reduced, cv2.resize(whole, (26, 16), interpolation=cv2.INTER_AREA))


def test_compressed_bytes_are_not_known(sample_slide: Path) -> None:
    assert OpenSlideReader(sample_slide, LIMITS).tile_bytes(0) is None


def test_tile_sizes_are_known(sample_slide: Path) -> None:
    assert OpenSlideReader(sample_slide, LIMITS).tile_sizes == ((256, 256), (256, 256))


@pytest.mark.parametrize(("side_px", "is_read"), [(4_096, True), (4_112, False), (16_000, False)])
def test_a_tile_that_would_take_gigabytes_is_refused_before_it_is_touched(
    tmp_path: Path, side_px: int, is_read: bool
) -> None:
    path = tmp_path / "one-tile.svs"
    one_tile = draft.Directory(side_px, side_px, side_px, [b"not looked at"], description="Aperio drawn\r\n|MPP = 0.5")
    path.write_bytes(draft.write_tiff([one_tile]))

    if is_read:
        assert OpenSlideReader(path, LIMITS).facts.width == side_px
    else:
        with pytest.raises(SlideTooLarge, match=f"{side_px} × {side_px} px"):
            OpenSlideReader(path, LIMITS)
