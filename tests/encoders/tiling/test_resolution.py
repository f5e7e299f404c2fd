import pytest

from encoders.tiling.resolution import credible_mpp


@pytest.mark.parametrize(
    ("vendor", "x", "y", "expected"),
    [
        ("aperio", 0.25, 0.25, 0.25),
        ("aperio", 0.5, 0.51, 0.505),
        ("aperio", None, 0.5, None),
        ("aperio", None, None, None),
        ("aperio", 0.5, 0.6, None),
        ("aperio", 0.04, 0.04, None),
        ("aperio", -0.5, -0.5, None),
        ("generic-tiff", 352.78, 352.78, None),
        ("generic-tiff", 28.97, 28.97, None),
        ("dicom", 28.97, 28.97, 28.97),
        ("dicom", 352.78, 352.78, None),
    ],
)
def test_only_a_possible_resolution_counts(
    vendor: str, x: float | None, y: float | None, expected: float | None
) -> None:
    assert credible_mpp(vendor, x, y) == (None if expected is None else pytest.approx(expected))
