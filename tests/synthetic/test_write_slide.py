import hashlib
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest

from encoders.tiling.tissue.find_tissue import find_tissue
from synthetic.slide_truth import slide_truth
from synthetic.synthetic_slide import SyntheticSlide
from synthetic.write_pyramid import write_pyramid
from synthetic.write_slide import write_synthetic_slide


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "sample.svs"
    write_synthetic_slide(path, seed=3)
    return path


def level_pixels(path: Path, level: int) -> np.ndarray:
    with openslide.OpenSlide(path) as slide:
        size = slide.level_dimensions[level]
        return np.asarray(slide.read_region((0, 0), level, size).convert("RGB"))


def test_openslide_takes_it_for_an_aperio_slide_with_its_resolution(slide: Path) -> None:
    with openslide.OpenSlide(slide) as opened:
        properties = opened.properties
        assert properties["openslide.vendor"] == "aperio"
        assert (properties["openslide.mpp-x"], properties["openslide.mpp-y"]) == ("0.5", "0.5")
        assert properties["openslide.objective-power"] == "20"
        assert opened.level_dimensions == ((4608, 3840), (1152, 960), (288, 240))
        assert not opened.associated_images


def test_it_is_partly_tissue_partly_glass_pink_and_purple(slide: Path) -> None:
    picture = level_pixels(slide, 2)
    tissue = find_tissue(picture)

    assert 0.15 < tissue.mean() < 0.7
    assert picture[~tissue].mean() > 215
    red, green, blue = picture[tissue].mean(axis=0)
    assert red > green + 20
    assert blue > green + 20
    hue = cv2.cvtColor(level_pixels(slide, 0), cv2.COLOR_RGB2HSV)
    stained = hue[hue[..., 1] > 60][:, 0]
    assert ((stained > 115) & (stained < 145)).mean() > 0.05, "no nuclei"
    assert (stained > 150).mean() > 0.05, "no eosin"


def test_blank_tiles_are_not_flat(slide: Path) -> None:
    corner = level_pixels(slide, 0)[:128, :128]

    assert 0.5 < corner.std(axis=(0, 1)).mean() < 3


def test_levels_show_the_same_picture(slide: Path) -> None:
    full = cv2.resize(level_pixels(slide, 0), (288, 240), interpolation=cv2.INTER_AREA)

    assert np.abs(level_pixels(slide, 2).astype(int) - full).mean() < 4  # two JPEGs apart


def test_the_seed_decides_and_nothing_else(tmp_path: Path) -> None:
    digests = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_synthetic_slide(tmp_path / name, seed=seed, width_px=700, height_px=500)
        digests.append(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())

    assert digests[0] == digests[1] != digests[2]


def test_a_finer_scan_has_its_own_magnification(tmp_path: Path) -> None:
    write_synthetic_slide(tmp_path / "s.svs", seed=1, width_px=700, height_px=500, mpp=0.25)

    with openslide.OpenSlide(tmp_path / "s.svs") as slide:
        assert slide.dimensions == (700, 500)
        assert slide.properties["openslide.objective-power"] == "40"
        assert slide.properties["openslide.mpp-x"] == "0.25"


def test_the_file_shows_what_the_slide_draws_and_says_what_is_true_of_it(tmp_path: Path) -> None:
    size = {"width_px": 900, "height_px": 700}
    truth = write_synthetic_slide(tmp_path / "s.svs", seed=12, **size, stain_seed=4)

    drawn = SyntheticSlide(seed=12, **size, stain_seed=4)
    assert truth == drawn.truth == slide_truth(12)
    pixels = level_pixels(tmp_path / "s.svs", 0).astype(int)
    assert np.abs(pixels - drawn.draw(0, 0, 900, 700)).mean() < 5  # one JPEG apart


def test_tiles_go_where_they_were_drawn(tmp_path: Path) -> None:
    def draw(x: int, y: int) -> np.ndarray:
        return np.full((256, 256, 3), (x // 8, y // 4, 128), dtype=np.uint8)

    write_pyramid(tmp_path / "p.svs", draw, width_px=1_000, height_px=600, mpp=1.0)

    pixels = level_pixels(tmp_path / "p.svs", 0)
    assert pixels.shape == (600, 1_000, 3)
    rows, columns = np.mgrid[0:600, 0:1_000] // 256 * 256
    assert np.abs(pixels[..., 0].astype(int) - columns // 8).mean() < 3
    assert np.abs(pixels[..., 1].astype(int) - rows // 4).mean() < 3


def test_a_failure_leaves_neither_slide_nor_rubbish(tmp_path: Path) -> None:
    def draw(x: int, y: int) -> np.ndarray:
        raise RuntimeError("out of ink")

    with pytest.raises(RuntimeError, match="out of ink"):
        write_pyramid(tmp_path / "p.svs", draw, width_px=1_000, height_px=600, mpp=1.0)

    assert list(tmp_path.iterdir()) == []
