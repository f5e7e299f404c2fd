"""`eyepiece levels …` as a person types it: the public code's files to a file of levels and back."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from drawn_levels import drawn_levels
from hierarchical_toys import write_flat_slide
from typer.testing import CliRunner, Result

from encoders.errors import UnusableFeatures
from encoders.hierarchical.levels import Levels
from encoders.hierarchical.levels_file import read_levels, write_levels
from server.__main__ import app
from server.commands.outcome import CommandError

SIZE = ["--width", "2048", "--height", "2048"]
REGION = ["--region-px", "1024"]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    write_levels(tmp_path / "own.h5", drawn_levels(region_grid=(1, 1), chosen=3))
    return tmp_path / "own.h5"


def levels(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["levels", *map(str, arguments)])


def arrays(of: Levels) -> list[bytes]:
    return [value.tobytes() for value in vars(of).values() if isinstance(value, np.ndarray)]


def test_a_file_of_levels_goes_out_and_comes_in_again(own: Path, tmp_path: Path) -> None:
    exported = levels("export", own, tmp_path / "features")
    imported = levels("import", tmp_path / "features", tmp_path / "again.h5", "--id", "ab" * 32, *SIZE, *REGION)

    assert (exported.exit_code, imported.exit_code) == (0, 0)
    assert "1 regions of 3 patches" in exported.output
    assert "--region-px 1024" in exported.output
    assert "which cells there were is not known; next: eyepiece upload" in imported.output
    again = read_levels(tmp_path / "again.h5")
    assert arrays(again) == arrays(read_levels(own))
    assert (again.cells, again.slide_id, again.level0_width, again.level0_height) == (None, "0" * 64, 2048, 2048)
    refused = levels("export", tmp_path / "again.h5", tmp_path / "other")
    assert "name the files with --id" in str(refused.exception)


def test_size_name_and_id_are_those_of_the_slide(own: Path, tmp_path: Path) -> None:
    write_flat_slide(tmp_path / "biopsy.svs", np.full((2048, 2048, 3), 240, np.uint8))
    levels("export", own, tmp_path / "features", "--id", "biopsy")

    imported = levels(
        "import", tmp_path / "features", tmp_path / "again.h5", "--slide", tmp_path / "biopsy.svs", *REGION
    )

    again = read_levels(tmp_path / "again.h5")
    assert imported.exit_code == 0
    assert arrays(again) == arrays(read_levels(own))
    assert again.slide_id == hashlib.sha256((tmp_path / "biopsy.svs").read_bytes()).hexdigest()
    assert (again.level0_width, again.level0_height) == (2048, 2048)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--id", "a"], "either --slide, or both"),
        (["--id", "a", "--width", "9"], "either --slide, or both"),
        (["--id", "a", "--slide", "s.svs", *SIZE], "either --slide, or both"),
        (["--id", "a", "--slide", "s.svs"], "s.svs is not a file"),
        (SIZE, "with --id"),
        (["--id", "../a", *SIZE], "--id is a name without"),
        (["--id", "..", *SIZE], "--id is a name without"),
        (["--id", "a", "--region-px", "1000", *SIZE], "multiple of 256"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, options: list[str], said: str) -> None:
    refused = levels("import", tmp_path, tmp_path / "out.h5", *options)

    assert isinstance(refused.exception, CommandError)
    assert said in str(refused.exception)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over_and_nothing_is_left(own: Path, tmp_path: Path) -> None:
    levels("export", own, tmp_path / "features", "--id", "a")
    before = own.read_bytes()

    again = levels("export", own, tmp_path / "features", "--id", "a")
    over = levels("import", tmp_path / "features", own, "--id", "a", *SIZE, *REGION)
    other = levels("import", tmp_path / "features", tmp_path / "out.h5", "--id", "a", "--width", "9", "--height", "9")
    damaged = levels("export", tmp_path / "features" / "wsi" / "a.pt", tmp_path / "features", "--id", "b")

    assert "is there already: name another folder" in str(again.exception)
    assert "is there already: name a new file" in str(over.exception)
    assert isinstance(other.exception, UnusableFeatures)
    assert "is no file of levels" in str(damaged.exception)
    assert own.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"own.h5", "features"}
