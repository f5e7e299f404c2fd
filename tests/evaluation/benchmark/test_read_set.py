"""Every layout of questions is read whole, and what is not whole is an error that names its place."""

import json
from pathlib import Path
from typing import Any

import pytest
from evaluation_fixtures import fixture, shared

from evaluation.benchmark.items import set_from_document
from evaluation.benchmark.read_options import options_in, taken_apart
from evaluation.benchmark.read_set import read_set
from evaluation.benchmark.wsi_bench import LAYOUT_A, LAYOUT_B, TASKS, published_rows
from evaluation.errors import UnreadableSet


def row_a(**changes: Any) -> dict[str, Any]:
    row = {
        "id": "TCGA-AA-0001-01Z-00-DX1.x-1",
        "image": "TCGA-LUAD/TCGA-AA-0001-01Z-00-DX1.ABC.DEF.pt",
        "conversations": [{"from": "human", "value": "<image>\nWhich? A) one B) two"}, {"from": "gpt", "value": "B"}],
    }
    return row | changes


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def lines(path: Path, *rows: object) -> Path:
    return written(path, "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")


def test_the_tasks_are_those_of_the_map() -> None:
    tasks = fixture("task_map.json")

    assert [(t.name, t.group, t.form, list(t.files), list(t.labels), t.rows_a, t.rows_b) for t in TASKS] == [
        (t["task"], t["group"], t["form"], t["files_A"], t["metadata_B"], t["rows_A"], t["rows_B"])
        for t in tasks["tasks"]
    ]
    assert sum(published_rows(LAYOUT_A).values()) == tasks["all"]["rows_A"]
    assert sum(published_rows(LAYOUT_B).values()) == tasks["all"]["rows_B"]


def test_real_rows_of_both_layouts() -> None:
    a = read_set(shared("wsi_bench_subset/dataset"))
    b = read_set(shared("wsi_bench_subset/WSI-Bench-test.jsonl"))

    assert (a.layout, len(a.items), b.layout, len(b.items)) == (LAYOUT_A, 32, LAYOUT_B, 27)
    assert all(len(item.options) == 4 for item in a.items if item.form == "letter")
    assert {item.truth for item in a.items if item.form == "yes_no"} <= {"Yes", "No"}
    assert not any("<image>" in item.question for item in (*a.items, *b.items))
    assert a.notes == (
        "Morphology_choice/TCGA-A5-A0G1-01Z-00-DX1.4C8E9452-B448-45F6-B239-3934FD3C25C7-3: "
        "the truth 'B \"' was read as B",
    )
    assert set_from_document(json.loads(json.dumps(b.as_document()))).digest == b.digest


def test_a_row_of_layout_a(tmp_path: Path) -> None:
    turned = row_a(conversations=row_a()["conversations"][::-1])
    written(tmp_path / "Staging_choice_test.json", [turned])
    written(tmp_path / "notes.json", [])

    read = read_set(tmp_path)

    (item,) = read.items
    assert item.key == "Staging_choice/TCGA-AA-0001-01Z-00-DX1.x-1"
    assert (item.task, item.slide, item.patient, item.project, item.options, item.truth) == (
        "Diagnosis_choice",
        "TCGA-AA-0001-01Z-00-DX1.ABC.DEF",
        "TCGA-AA-0001",
        "TCGA-LUAD",
        ("one", "two"),
        "B",
    )
    assert read.notes == ("notes.json is no task of WSI-Bench and was left out",)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row_a(image=None)], "`image` is missing"),
        ([row_a(), row_a()], "more than once"),
        ([row_a(conversations=[{"from": "human", "value": "a"}])], "`gpt` is missing"),
        ([row_a(conversations="x")], "`human` is missing"),
        ({"rows": 1}, "no JSON list"),
    ],
)
def test_a_broken_row_of_layout_a_is_named(tmp_path: Path, rows: object, said: str) -> None:
    with pytest.raises(UnreadableSet, match=said):
        read_set(written(tmp_path / "Staging_choice_test.json", rows), "wsi-bench-a")


def test_a_truth_that_is_no_option_is_an_error(tmp_path: Path) -> None:
    row = row_a()
    row["conversations"][1]["value"] = "E"

    with pytest.raises(UnreadableSet, match="'E' is none of A, B"):
        read_set(written(tmp_path / "Staging_choice_test.json", [row]))


def test_slidebench(tmp_path: Path) -> None:
    head = "ID,Slide,Tumor,Broad Category,Narrow Category,Question,A,B,C,D,Answer"
    path = written(tmp_path / "s.csv", f'{head}\n7,TCGA-AA-0001-01Z,LUAD,Diagnosis,Grading,"Which, now?",g1,g2,g3,,C\n')

    (item,) = read_set(path).items

    assert (item.key, item.group, item.task, item.options, item.truth) == (
        "7",
        "Diagnosis",
        "Grading",
        ("g1", "g2", "g3"),
        "C",
    )
    assert item.question == "Which, now?\nA) g1\nB) g2\nC) g3"


def test_multipathqa(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(
        "benchmark_name,benchmark_id,image_path,answer,options,prompt\n"
        "tcga,1,TCGA-AA-0001.svs,2,\"['one', 'two']\",Which?\n"
        "gtex,2,GTEX-1.tiff,Skin,\"['Lung', 'Skin']\",Organ?\n"
        "panda,3,abc.tiff,4,,Grade?\n"
    )

    items = read_set(path).items

    assert [(item.form, item.truth) for item in items] == [("letter", "B"), ("letter", "B"), ("number", "4")]
    assert "B) Skin" in items[1].question


def test_wsi_vqa(tmp_path: Path) -> None:
    rows = [
        {"Id": "TCGA-AA-0001", "Question": "Which?", "Answer": "two", "Choice": ["one", "two", "three", "four"]},
        {"Id": "TCGA-AA-0001", "Question": "What?", "Answer": "A thing."},
    ]

    closed, free = read_set(written(tmp_path / "w.json", rows)).items

    assert (closed.form, closed.truth, closed.slide, free.form, free.truth) == (
        "letter",
        "B",
        "TCGA-AA-0001",
        "open",
        "A thing.",
    )


def test_plain_lines(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "q.jsonl",
        {"id": "1", "slide": "P/a.svs", "question": "Is it?", "answer": "Yes"},
        {"id": "2", "slide": "b.svs", "question": "Which?", "answer": "A", "options": ["x", "y"], "patient": "p"},
        {"id": "3", "slide": "b.svs", "question": "What?", "answer": "A thing\u2028here.", "project": "Q"},
    )

    items = read_set(path).items

    assert [(i.form, i.slide, i.patient, i.project) for i in items] == [
        ("yes_no", "a", "a", "P"),
        ("letter", "b", "p", ""),
        ("open", "b", "b", "Q"),
    ]


@pytest.mark.parametrize("content", ["", "{", '{"x": 1}\n', "\n[1]\n"])
def test_what_is_of_no_layout_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(UnreadableSet):
        read_set(written(tmp_path / "q.jsonl", content))


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("Which? A) one B) two", ("one", "two")),
        ("Which?\nA. one\nB. two. C) or so\nD. four", ("one", "two.", "or so", "four")),
        ("Choose (A) one, (B) two", ("one", "two")),
        ("Grade A. tumours?", ()),
        ("What is the stage?", ()),
    ],
)
def test_options_in_a_text(question: str, options: tuple[str, ...]) -> None:
    assert options_in(question) == options


def test_a_question_without_its_options() -> None:
    assert taken_apart("Which one? A) one B) two").stem == "Which one?"
