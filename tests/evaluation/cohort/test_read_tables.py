"""The tables of a cohort are read strictly: what is not whole is refused with its row."""

from pathlib import Path

import pytest

from evaluation.cohort.read_tables import CohortSlide, read_questions, read_slides
from evaluation.errors import UnreadableSet


def table(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text)
    return path


def test_slides_are_files_beside_the_table_or_known_to_the_server(tmp_path: Path) -> None:
    (tmp_path / "a.svs").touch()

    found = read_slides(table(tmp_path, "slide,path,id,arm\nA,a.svs,,treated\nB,,5e5e5e,\n"))

    assert found == (
        CohortSlide("A", tmp_path / "a.svs", None, {"arm": "treated"}),
        CohortSlide("B", None, "5e5e5e", {"arm": ""}),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slide,path\n", "names no slide"),
        ("slide,path\nA,\n", "row 2: give either `path`"),
        ("slide,path,id\nA,a.svs,5e5e5e\n", "row 2: give either `path`"),
        ("slide,path\nA,missing.svs\n", "row 2: there is no file missing.svs"),
        ("name,path\nA,a.svs\n", "row 2: `slide` is missing"),
        ("slide,id\nA,5e5e5e\nA,6f6f6f\n", "`slide` A stands there more than once"),
        ("slide,id,answer\nA,5e5e5e,x\n", "its own column answer"),
        ("slide,id\nA,5e5e5e,x,y\n", "row 2 has more fields"),
    ],
)
def test_a_table_of_slides_that_is_not_whole(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.svs").touch()

    with pytest.raises(UnreadableSet, match=said):
        read_slides(table(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("key,question\n", "asks nothing"),
        ("key,question\ng,\n", "row 2: `question` is missing"),
        ("key,question,choices\ng,Which?,Yes\n", "row 2: one choice is none"),
        ("key,question\ng,Which?\ng,What?\n", "`key` g stands there more than once"),
    ],
)
def test_a_table_of_questions_that_is_not_whole(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UnreadableSet, match=said):
        read_questions(table(tmp_path, text))
