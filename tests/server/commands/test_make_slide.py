"""`eyepiece make-slide`: a slide and its truth, both or neither."""

import json
from pathlib import Path

import openslide
import pytest

from server.commands.make_slide import SlideOptions, answer_key, make_slide
from server.commands.outcome import CommandError, ExitCode
from synthetic.questions.topics import ATTRIBUTES
from synthetic.slide_truth import FIRST_TRAINING_SEED, slide_truth


def options(folder: Path, seed: int | None = 11, **more: float) -> SlideOptions:
    size = {"width_px": 1024, "height_px": 768}
    return SlideOptions(folder / "out.svs", seed, **{**size, **more})  # type: ignore[arg-type]


def test_the_truth_stands_beside_the_slide(tmp_path: Path) -> None:
    truth = make_slide(options(tmp_path))

    document = json.loads((tmp_path / "out.json").read_text())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.svs"]
    assert document == answer_key(truth) == answer_key(slide_truth(11))
    assert set(document) == {"seed", "attributes", "questions"}
    assert document["attributes"] == {
        "pattern": "glandular",
        "grade": "grade 1",
        "mitoses": "frequent",
        "lymphocytes": "sparse",
        "stroma": "loose",
        "extent": "moderate",
        "tumour_fraction": truth.tumour_fraction,
        "necrosis": "lower right",
    }


@pytest.mark.parametrize("seed", range(12))
def test_questions_are_closed_or_open_and_answered_in_the_attributes_words(seed: int) -> None:
    document = answer_key(slide_truth(seed))

    closed = [question for question in document["questions"] if question["kind"] == "closed"]
    assert len(closed) >= 8
    assert {question["answer"] for question in closed} <= {*"ABCD", "Yes", "No"}
    assert {question["kind"] for question in document["questions"]} == {"closed", "open"}
    assert all(set(one) == {"task", "topic", "kind", "question", "answer"} for one in document["questions"])
    (report,) = (one["answer"] for one in document["questions"] if one["task"] == "Report")
    for topic in ATTRIBUTES:
        words = document["attributes"][topic.attribute]
        assert (words or "") in report
        assert (words is None) == (getattr(slide_truth(seed), topic.attribute) is None)


def test_resolution_and_size_are_as_wished(tmp_path: Path) -> None:
    make_slide(options(tmp_path, mpp=0.25, width_px=1280))

    with openslide.OpenSlide(tmp_path / "out.svs") as slide:
        assert slide.dimensions == (1280, 768)
        assert float(slide.properties["openslide.mpp-x"]) == 0.25


def test_a_stain_of_its_own_changes_the_picture_and_not_the_truth(tmp_path: Path) -> None:
    first, second = (tmp_path / "a", tmp_path / "b")

    assert make_slide(options(first)) == make_slide(options(second, stain_seed=99))
    assert (first / "out.svs").read_bytes() != (second / "out.svs").read_bytes()
    assert (first / "out.json").read_bytes() == (second / "out.json").read_bytes()


def test_without_a_seed_there_is_one_that_draws_it_again(tmp_path: Path) -> None:
    truth = make_slide(options(tmp_path / "a", seed=None))
    make_slide(options(tmp_path / "b", seed=truth.seed))

    assert (tmp_path / "a/out.svs").read_bytes() == (tmp_path / "b/out.svs").read_bytes()


@pytest.mark.parametrize("name", ["out.svs", "out.json"])
def test_neither_file_is_written_over(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")

    with pytest.raises(CommandError, match=f"{name} exists already") as caught:
        make_slide(options(tmp_path))

    assert caught.value.exit_code == ExitCode.USAGE
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "precious")]


def test_a_slide_whose_truth_cannot_be_written_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)

    with pytest.raises(OSError, match="No space"):
        make_slide(options(tmp_path))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", [-1, FIRST_TRAINING_SEED])
def test_seeds_of_training_are_refused(tmp_path: Path, seed: int) -> None:
    with pytest.raises(CommandError, match="A seed is at least 0 and below"):
        make_slide(options(tmp_path, seed=seed))

    assert list(tmp_path.iterdir()) == []


def test_a_slide_cannot_have_the_name_of_its_truth(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"name the slide like sample\.svs"):
        make_slide(SlideOptions(tmp_path / "out.json", 1))
