import pytest

from encoders.errors import MissingMpp
from encoders.tiling.resolution import StatedResolution, credible_mpp, effective_mpp, judge_resolution
from encoders.types import SlideFacts


@pytest.mark.parametrize(
    ("vendor", "x", "y", "expected"),
    [
        ("aperio", 0.25, 0.25, 0.25),
        ("aperio", 0.5, 0.51, 0.505),
        ("aperio", 0.5, 0.6, None),
        ("aperio", 0.04, 0.04, None),
        ("aperio", -0.5, -0.5, None),
        ("generic-tiff", 0.05, 0.05, None),
        ("generic-tiff", 0.12, 0.12, 0.12),
        ("mirax", 0.06, 0.06, 0.06),
        ("generic-tiff", 352.78, 352.78, None),
        ("generic-tiff", 28.97, 28.97, None),
        ("dicom", 28.97, 28.97, 28.97),
        ("dicom", 352.78, 352.78, None),
    ],
)
def test_only_a_possible_resolution_counts(vendor: str, x: float, y: float, expected: float | None) -> None:
    assert credible_mpp(vendor, x, y) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("said", "mpp", "words"),
    [
        (StatedResolution("aperio", None, 0.5), None, None),
        (StatedResolution("aperio", 0.5, 0.5, 20.0, None, "Aperio|AppMag = 20|MPP = 0.5"), 0.5, None),
        (StatedResolution("aperio", 0.2325, 0.2325, 40.0, 0.2325), 0.2325, None),
        (StatedResolution("mirax", 0.243, 0.243, 20.0), 0.243, None),
        # 72 dpi of a picture editor says nothing about the scanner.
        (StatedResolution("aperio", 0.5, 0.5, 20.0, 352.8), 0.5, None),
        (
            StatedResolution("generic-tiff", 0.5, 0.5, None, 0.5, 'PhysicalSizeX="500" PhysicalSizeXUnit="nm"'),
            0.5,
            None,
        ),
        (StatedResolution("aperio", 0.5, 0.5, 40.0), 0.5, "objective of 40×, which usually gives 0.25"),
        (StatedResolution("aperio", 0.25, 0.25, 20.0), 0.25, "objective of 20×"),
        (StatedResolution("aperio", 0.5, 0.5, 20.0, 0.25), 0.5, "resolution tags of 0.25"),
        (StatedResolution("generic-tiff", 0.25, 0.25, None, 0.25, "Made by X|MPP = 0.5"), 0.25, "description with 0.5"),
        (
            StatedResolution("generic-tiff", 0.25, 0.25, None, 0.25, '<OME PhysicalSizeX="0.5"'),
            0.25,
            "description with",
        ),
        (
            StatedResolution(
                "generic-tiff", 0.25, 0.25, None, 0.25, '<a PhysicalSizeX="500" PhysicalSizeXUnit="nm" />'
            ),
            0.25,
            "description with 0.5",
        ),
        (
            StatedResolution(
                "generic-tiff", 0.25, 0.25, None, 0.25, "<a PhysicalSizeX='5.0E-4' PhysicalSizeXUnit='mm'/>"
            ),
            0.25,
            "description with 0.5",
        ),
        (
            StatedResolution(
                "generic-tiff", 0.25, 0.25, None, 0.25, '<a PhysicalSizeX="0.5" PhysicalSizeXUnit="&#181;m"/>'
            ),
            0.25,
            "description with 0.5",
        ),
        (
            StatedResolution("generic-tiff", 0.25, 0.25, None, 0.25, "ImageJ=1.53t\nunit=\\u00B5m\npixel_width=0.5\n"),
            0.25,
            "description with 0.5",
        ),
        (StatedResolution("aperio", 0.25, 0.25, None, None, "x|MPP = 0,5|"), 0.25, "description with 0.5"),
        (StatedResolution("generic-tiff", 0.5, 0.5, None, 0.5, "x|AppMag = 40|"), 0.5, "objective of 40×"),
        (StatedResolution("aperio", 0.05, 0.05, 20.0), None, "0.05 µm/px, which cannot be with its objective of 20×"),
        (StatedResolution("generic-tiff", 0.05, 0.05), None, "0.05 µm/px, which no scanner"),
        (StatedResolution("aperio", 0.5, 0.6), None, "0.5 × 0.6 µm/px"),
    ],
)
def test_what_a_file_says_twice_must_agree_or_is_doubted(
    said: StatedResolution, mpp: float | None, words: str | None
) -> None:
    judged, warnings = judge_resolution(said)

    assert judged == mpp
    assert [words in it.detail and len(it.detail) <= 300 for it in warnings if words] == [True] * bool(words)
    assert bool(warnings) == bool(words)


# The words of Aperio's own export of a part of CMU-1, of 2220 × 2967 px.
CUT_FROM_CMU_1 = (
    "Aperio Image Library v11.2.1 \r\n46000x32914 [42673,5576 2220x2967] (240x240) JPEG/RGB Q=30;Aperio Image Library "
    "v10.0.51\r\n46920x33014 [0,100 46000x32914] (256x256) JPEG/RGB Q=30|AppMag = 20|MPP = 0.4990|OriginalWidth = 46920"
    "|Originalheight = 33014|Filtered = 5|OriginalWidth = 46000|OriginalHeight = 32914"
)
WHOLE = "Aperio Image Library v12\r\n5120x6144 (256x256) JPEG/RGB Q=30|MPP = 0.5"
WITHOUT_LINE = "Aperio Image Library v12|MPP = 0.5|OriginalWidth = 5120|OriginalHeight = 6144"


@pytest.mark.parametrize(
    ("description", "size", "words"),
    [
        (CUT_FROM_CMU_1, (2220, 2967), None),
        (CUT_FROM_CMU_1, (46_000, 32_914), None),
        (CUT_FROM_CMU_1, (1110, 1483), "2 times smaller than the described scan (2220 × 2967 px), which gives 1."),
        (CUT_FROM_CMU_1, (5_750, 4_114), "8 times smaller than the described scan (46000 × 32914 px)"),
        (CUT_FROM_CMU_1, (1_110, 2_000), None),
        (WHOLE, (5120, 6144), None),
        (WHOLE, (5100, 6120), None),
        (WHOLE, (4000, 4800), None),
        (WHOLE, (2560, 3072), "2 times smaller than the described scan (5120 × 6144 px)"),
        (WHOLE, (10_240, 12_288), "2 times larger than the described scan (5120 × 6144 px), which gives 0.25."),
        (WHOLE, (2560, 6144), None),
        (WITHOUT_LINE, (2560, 3072), "2 times smaller"),
        (WITHOUT_LINE, (5120, 6144), None),
        ("Aperio\r\n0x0 [0,0 0x0] (256x256)|OriginalWidth = 0|OriginalHeight = 0", (2560, 3072), None),
        (WHOLE.removeprefix("Aperio"), (2560, 3072), None),
    ],
)
def test_a_picture_that_is_its_described_scan_resized_is_doubted(
    description: str, size: tuple[int, int], words: str | None
) -> None:
    mpp, warnings = judge_resolution(StatedResolution("aperio", 0.5, 0.5, description=description, size=size))

    assert mpp == 0.5
    assert [it.code for it in warnings] == ["mpp_contradicted"] * bool(words)
    assert all(str(words) in it.detail for it in warnings)


def test_glass_and_picture_of_other_shape_say_nothing_of_the_resolution() -> None:
    for volume_mm in ((1.28, 1.536), (1.28, 0.768), (1_280.0, 1_536.0), (-1.28, -1.536)):
        said = StatedResolution("dicom", 0.5, 0.5, size=(2560, 3072), volume_mm=volume_mm)
        assert judge_resolution(said) == (0.5, ())


def test_all_doubts_about_an_aperio_slide_are_short_enough() -> None:
    text = "Aperio Image Library\r\n399999x399999 (240x240)|MPP = 0.1251"
    said = StatedResolution("aperio", 0.2512, 0.2512, 133.3, 0.1253, text, (123_456, 123_456))
    (doubt,) = judge_resolution(said)[1]

    assert [word for word in ("objective", "tags", "description", "scan") if word not in doubt.detail] == []
    assert len(doubt.detail) <= 300


def test_a_refusal_tells_what_was_found() -> None:
    mpp, warnings = judge_resolution(StatedResolution("generic-tiff", 0.05, 0.05))

    with pytest.raises(MissingMpp, match=r"^The file states 0\.05 µm/px, .* Give `mpp`"):
        effective_mpp(SlideFacts("generic-tiff", 10, 10, mpp, None, warnings), None)
    with pytest.raises(MissingMpp, match=r"^The slide states no resolution"):
        effective_mpp(SlideFacts("generic-tiff", 10, 10, None, None), None)
