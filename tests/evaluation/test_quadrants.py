"""The examination of regions: where necrosis is known to be, and how answers are read and counted."""

import numpy as np
import pytest

from evaluation.quadrants import QuadrantAnswer, QuadrantScore, quadrants_of, read_yes_no, score_quadrants
from evaluation.score import Score
from synthetic.slide_layout import REGIONS, SlideLayout
from synthetic.slide_truth import slide_truth
from synthetic.write_slide import HEIGHT_UM, WIDTH_UM


@pytest.mark.parametrize("seed", [101, 307])
def test_the_necrosis_lies_in_the_quadrant_that_is_said_to_have_it(seed: int) -> None:
    layout = SlideLayout(slide_truth(seed), width_um=WIDTH_UM, height_um=HEIGHT_UM)
    necrotic = layout.region_map == REGIONS.index("necrosis")
    places = np.argwhere(necrotic)[:, ::-1] * layout.cell_um / 0.5
    inside = []
    for asked in quadrants_of(seed):
        x, y, width, height = asked.box
        in_box = (places >= (x, y)).all(axis=1) & (places < (x + width, y + height)).all(axis=1)
        inside.append((asked.has_necrosis, bool(in_box.all() and len(places)), bool(in_box.any())))

    assert all(has == whole == some for has, whole, some in inside)
    assert sum(has for has, _, _ in inside) == int(slide_truth(seed).necrosis is not None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Yes", True),
        ("no.", False),
        (" Yes, in the lower left.", True),
        ("Nothing", None),
        ("Necrosis is not seen.", None),
    ],
)
def test_an_answer_is_read_by_its_first_word(text: str, said: bool | None) -> None:
    assert read_yes_no(text) is said


def test_an_answer_of_neither_word_is_wrong() -> None:
    answers = [QuadrantAnswer(asked, None) for asked in quadrants_of(101)]

    assert score_quadrants(answers) == QuadrantScore(Score(0, 1), Score(0, 3))


def test_no_to_everything_is_not_enough() -> None:
    answers = [QuadrantAnswer(asked, False) for asked in quadrants_of(101)]
    score = score_quadrants(answers)

    assert (score.all, score.is_reached) == (Score(3, 4), False)
    assert "with necrosis 0 of 1 right (0.0%)" in score.text()
    assert not score_quadrants([]).is_reached
    assert score_quadrants([QuadrantAnswer(it.asked, it.asked.has_necrosis) for it in answers]).is_reached
