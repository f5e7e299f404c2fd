"""A killed installation leaves no half model, and two at once do not mix."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from model_store.errors import ModelError
from model_store.files.staged_folder import staged_model

CHILD = """
import sys
from pathlib import Path
from model_store.files.staged_folder import staged_model
with staged_model(Path(sys.argv[1]), "toy") as folder:
    (folder / "half").write_text("a")
    print("staged", flush=True)
    sys.stdin.read()
"""


def visible(models_dir: Path) -> list[str]:
    return [path.name for path in models_dir.iterdir() if not path.name.startswith(".")]


def test_a_second_one_waits_its_turn_and_a_killed_one_leaves_nothing(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "staged\n"
        with pytest.raises(ModelError, match="being installed by another process"), staged_model(tmp_path, "toy"):
            pass
        os.kill(child.pid, signal.SIGKILL)
    assert visible(tmp_path) == []

    with staged_model(tmp_path, "toy") as folder:
        assert list(folder.iterdir()) == []
        (folder / "whole").write_text("b")

    assert [path.name for path in tmp_path.iterdir()] == ["toy"]
    assert [path.name for path in (tmp_path / "toy").iterdir()] == ["whole"]


def test_an_error_leaves_the_model_that_was_there(tmp_path: Path) -> None:
    with staged_model(tmp_path, "toy") as folder:
        (folder / "first").write_text("a")

    with pytest.raises(IsADirectoryError), staged_model(tmp_path, "toy") as folder:
        folder.write_text("b")

    assert [path.name for path in (tmp_path / "toy").iterdir()] == ["first"]


def test_a_folder_that_cannot_be_written_is_told_in_our_words(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file in its place")

    with pytest.raises(ModelError, match="make it writable") as caught, staged_model(tmp_path / "models", "demo"):
        pass

    assert str(tmp_path) not in caught.value.detail
