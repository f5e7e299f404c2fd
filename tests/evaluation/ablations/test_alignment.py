import numpy as np
import pytest

from evaluation.ablations.alignment import HEAD, align, alignment_table


def sides(noise: float, pairs: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    slides = rng.standard_normal((pairs, 16))
    return slides, slides + noise * rng.standard_normal((pairs, 16))


def test_sides_that_belong_together_are_found_and_others_are_at_chance() -> None:
    aligned, apart = align(*sides(0.1)), align(sides(0.1)[0], np.random.default_rng(1).standard_normal((30, 16)))

    assert aligned.gap > 0.9
    assert aligned.report_to_slide["R@1"] == aligned.slide_to_report["MRR"] == 1.0
    assert aligned.shuffled["R@1"] == 0.0
    assert abs(apart.gap) < 0.15
    assert apart.report_to_slide["R@1"] < 0.2


def test_where_the_sides_lie_does_not_matter_and_is_told_apart() -> None:
    slides, reports = sides(0.1)
    far = np.zeros(16)
    far[0] = 100.0

    moved = align(slides + far, reports - far)

    assert moved.cosine == pytest.approx(align(slides, reports).cosine)
    assert moved.cosine_of_means == pytest.approx(-1.0, abs=0.01)


def test_sides_that_are_all_alike_find_nothing() -> None:
    alike = align(np.ones((5, 4)), np.ones((5, 4)))

    assert alike.report_to_slide["R@1"] == 0.0
    assert alike.gap == 0.0


@pytest.mark.parametrize(("slides", "reports"), [((3, 4), (4, 4)), ((2, 4), (2, 4)), ((3, 4), (3, 5))])
def test_what_does_not_belong_together_is_refused(slides: tuple[int, int], reports: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="as many rows"):
        align(np.zeros(slides), np.zeros(reports))


def test_every_column_has_a_head() -> None:
    table = alignment_table("Title", [("space", align(*sides(0.5)))], ["Note."])

    assert {len(row) for row in table.rows} == {len(HEAD)}
    assert table.notes[-1] == "Note."
