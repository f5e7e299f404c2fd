"""Slides whose tiles stand in many places are slides like others, and what a whole worker takes for one is measured."""

import json
from pathlib import Path

import numpy as np
import openslide
import pytest

from benchmarks import large_slides
from benchmarks.repeated_slides import SQUARE_PX, decoded_gb, write_repeated_slide


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repeated")
    write_repeated_slide(large_slides.slide_path(SQUARE_PX, folder), SQUARE_PX)
    write_repeated_slide(folder / "wide.svs", 2 * SQUARE_PX)
    return folder


def test_openslide_sees_the_same_square_again_and_again_on_every_level(folder: Path) -> None:
    with openslide.OpenSlide(folder / "wide.svs") as slide:
        sides = [width for width, _ in slide.level_dimensions]
        for level, side in enumerate(sides):
            whole = np.asarray(slide.read_region((0, 0), level, (side, side)).convert("RGB"))
            first, last = whole[: side // 2, : side // 2], whole[side // 2 :, side // 2 :]
            # On the coarsest level the squares share a tile, and JPEG's colours run over their edges.
            assert np.abs(first.astype(int) - last).mean() < (0 if level < 3 else 1) + 1e-9
        assert float(slide.properties["openslide.mpp-x"]) == 0.25

    assert sides == [8192, 2048, 512, 128]
    assert whole.std() > 5
    assert (folder / "wide.svs").stat().st_size < 8e6 < 1e9 * decoded_gb(2 * SQUARE_PX)


def test_a_slide_is_measured_in_a_process_of_its_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.write_results.LOCAL", tmp_path)

    large_slides.main(["--folder", str(folder), "--sides", str(SQUARE_PX)])

    (slide,) = json.loads((tmp_path / "large_slides.json").read_text())["slides"]
    assert slide["encoded"]["tiles"] == (SQUARE_PX // 512) ** 2
    assert 0 < slide["encoded"]["tile_stage"]["wall_s"] < slide["wall_s"]
    assert slide["encoded"]["reader_read_mb"] > 0.5
    assert slide["encoded"]["worker_peak_mb"] > 50
    said = capsys.readouterr().out
    assert "| 0.1 | " in said
    assert "Memory within 2000 MB and 6 kB a tile: met." in said
