import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from encoders.tiling.slide_readers.area_mean import IS_COMPILED, area_mean, mean_2x2, opencv_mean_2x2

Mean = Callable[[NDArray[np.uint8], NDArray[np.uint8]], None]
HAS_AVX2 = sysconfig.get_platform() == "linux-x86_64" and "avx2" in Path("/proc/cpuinfo").read_text()
WAYS = pytest.mark.parametrize("mean", [mean_2x2, opencv_mean_2x2])


def pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def rounded_mean(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Written out: (a + b + c + d + 2) // 4."""
    height, width = rgba.shape[0] // 2, rgba.shape[1] // 2
    blocks = rgba[..., :3].astype(np.uint16).reshape(height, 2, width, 2, 3)
    return np.asarray((blocks.sum(axis=(1, 3)) + 2) // 4, dtype=np.uint8)


@pytest.mark.skipif(not HAS_AVX2 or shutil.which("cc") is None, reason="needs AVX2 and a C compiler")
def test_it_is_compiled_where_there_is_a_compiler() -> None:
    assert IS_COMPILED


@WAYS
@given(height=st.integers(1, 9), width=st.integers(1, 40), seed=st.integers(0, 9))
def test_the_mean_of_two_by_two_rounds_up_at_the_half(mean: Mean, height: int, width: int, seed: int) -> None:
    rgba = pixels(2 * height, 2 * width, 4, seed=seed)
    out = np.empty((height, width, 3), np.uint8)

    mean(rgba, out)

    np.testing.assert_array_equal(out, rounded_mean(rgba))


@WAYS
def test_every_sum_of_four_is_rounded_alike(mean: Mean) -> None:
    sums = np.arange(4 * 255 + 1)
    parts = np.stack([(sums + place) // 4 for place in range(4)], axis=-1).astype(np.uint8)
    rgba = np.repeat(parts.reshape(-1, 2, 2).transpose(1, 0, 2).reshape(2, -1, 1), 4, axis=2)
    out = np.empty((1, len(sums), 3), np.uint8)

    mean(np.ascontiguousarray(rgba), out)

    np.testing.assert_array_equal(out[0], np.repeat(((sums + 2) // 4)[:, None], 3, axis=1))


@WAYS
@pytest.mark.parametrize("width", [7, 8, 16, 17])
def test_nothing_is_written_beside_a_part_of_a_picture(mean: Mean, width: int) -> None:
    whole = np.full((7, width + 5, 3), 9, np.uint8)
    part = whole[1:6, 2 : 2 + width]

    mean(pixels(10, 2 * width, 4), part)

    np.testing.assert_array_equal(part, rounded_mean(pixels(10, 2 * width, 4)))
    part[...] = 9
    assert (whole == 9).all()


@pytest.mark.skipif(not IS_COMPILED, reason="was not compiled when Eyepiece was installed")
@pytest.mark.parametrize(
    ("rgba", "out"),
    [
        (pixels(4, 4, 3), pixels(2, 2, 3)),
        (pixels(4, 4, 4), pixels(2, 2, 4)),
        (pixels(4, 4, 4), pixels(2, 1, 3)),
        (pixels(4, 4, 4), pixels(1, 2, 3)),
        (pixels(5, 4, 4), pixels(2, 2, 3)),
        (pixels(4, 4, 4), pixels(2, 4, 3)[:, ::2]),
        (pixels(4, 8, 4)[:, ::2], pixels(2, 2, 3)),
        (pixels(4, 4, 4).astype(np.uint16), pixels(2, 2, 3)),
        (pixels(4, 16), pixels(2, 2, 3)),
    ],
)
def test_anything_but_pictures_that_fit_is_refused(rgba: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    before = out.copy()

    with pytest.raises(ValueError, match="takes uint8"):
        mean_2x2(rgba, out)

    np.testing.assert_array_equal(out, before)


@pytest.mark.skipif(not IS_COMPILED, reason="was not compiled when Eyepiece was installed")
def test_what_may_not_be_written_is_refused() -> None:
    out = pixels(2, 2, 3)
    out.flags.writeable = False

    with pytest.raises((ValueError, BufferError)):
        mean_2x2(pixels(4, 4, 4), out)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_the_mean_of_any_factor_keeps_what_is_even(factor: int) -> None:
    small = pixels(5, 6, 3)
    out = np.empty_like(small)

    area_mean(np.repeat(np.repeat(small, factor, axis=0), factor, axis=1), out)

    np.testing.assert_array_equal(out, small)
