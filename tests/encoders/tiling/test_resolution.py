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


def test_a_refusal_tells_what_was_found() -> None:
    mpp, warnings = judge_resolution(StatedResolution("generic-tiff", 0.05, 0.05))

    with pytest.raises(MissingMpp, match=r"^The file states 0\.05 µm/px, .* Give `mpp`"):
        effective_mpp(SlideFacts("generic-tiff", 10, 10, mpp, None, warnings), None)
    with pytest.raises(MissingMpp, match=r"^The slide states no resolution"):
        effective_mpp(SlideFacts("generic-tiff", 10, 10, None, None), None)
