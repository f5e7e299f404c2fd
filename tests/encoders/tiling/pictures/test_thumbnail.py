from pathlib import Path

import cv2
import numpy as np
import pytest

from encoders.tiling.isolation.reader_limits import ReaderLimits
from encoders.tiling.pictures.view_pictures import ViewPictures, as_picture
from encoders.tiling.slide_readers.open_slide import OpenSlideReader

LIMITS = ReaderLimits()


def decode(png: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize(("max_px", "size"), [(512, (512, 384)), (300, (300, 225)), (1, (1, 1)), (4_096, (2048, 1536))])
def test_it_has_the_slides_shape_and_is_never_enlarged(sample_slide: Path, max_px: int, size: tuple[int, int]) -> None:
    picture = decode(as_picture(ViewPictures(OpenSlideReader(sample_slide, LIMITS), LIMITS).thumbnail(max_px), "png"))

    assert picture.shape == (size[1], size[0], 3)


def test_it_shows_the_slide_in_its_own_colours(sample_slide: Path) -> None:
    reader = OpenSlideReader(sample_slide, LIMITS)
    whole = cv2.resize(reader.read_region(0, 0, 0, 2048, 1536), (256, 192), interpolation=cv2.INTER_AREA)

    picture = decode(as_picture(ViewPictures(reader, LIMITS).thumbnail(256), "png"))

    assert np.abs(picture.astype(int) - whole).mean() < 3


def test_a_slide_with_label_and_macro_images_shows_only_tissue(shared_slides: Path) -> None:
    reader = OpenSlideReader(shared_slides / "cmu-1-small-region.svs", LIMITS)

    picture = decode(as_picture(ViewPictures(reader, LIMITS).thumbnail(371), "png"))

    assert picture.shape == (371, 278, 3)
    assert np.abs(picture.mean(axis=(0, 1)) - reader.read_region(0, 0, 0, 2220, 2967).mean(axis=(0, 1))).max() < 3
