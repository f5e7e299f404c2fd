from pathlib import Path

from single_level_slide import write_single_level_slide

from benchmarks import view_tiles
from encoders.tiling.pictures.deep_zoom import DeepZoom


def test_every_kind_of_level_is_measured_with_tiles_that_exist(tmp_path: Path) -> None:
    write_single_level_slide(tmp_path / "slide.svs")

    found = view_tiles.measure("drawn", tmp_path / "slide.svs", tiles=2)

    assert (found.width, found.downsamples, found.first_view_tiles) == (6_144, [1.0], 144)
    assert [it.tiles for it in found.warm.values()] == [2, 2, 2]
    assert view_tiles.report([found]).count("drawn") == 4


def test_a_small_slide_is_a_view_as_it_is() -> None:
    assert view_tiles._first_view(DeepZoom(300, 200)) == [(9, 0, 0), (9, 1, 0)]
