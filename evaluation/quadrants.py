"""Plans and judges the examination of regions: "Is there necrosis?" of each quadrant of drawn slides. Pure: nobody is
asked here.

A drawn slide has its only necrosis in one quadrant of its tissue, or none. So the right answer of a quadrant is known,
and is another one than the slide's in three of four quadrants of a slide that has some.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from evaluation.score import Score
from synthetic.place_regions import quadrant_box
from synthetic.slide_layout import SlideLayout
from synthetic.slide_truth import QUADRANTS, Quadrant, slide_truth
from synthetic.write_slide import HEIGHT_UM, WIDTH_UM

QUESTION: Final = "Is there necrosis?"
# Of all quadrants. "No" to all is right in about 87 %.
LEAST_RIGHT: Final = 0.95
_FIRST_WORD = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


@dataclass(frozen=True)
class AskedQuadrant:
    """A quadrant of a slide's tissue: x, y, width and height in level-0 pixels, and whether it has necrosis."""

    seed: int
    quadrant: Quadrant
    box: tuple[float, float, float, float]
    has_necrosis: bool


@dataclass(frozen=True)
class QuadrantAnswer:
    """`said` is None where the answer begins with neither Yes nor No; `region_ms` is until the region was at hand."""

    asked: AskedQuadrant
    said: bool | None
    region_ms: float = 0.0

    @property
    def is_right(self) -> bool:
        """Whether it says what is true."""
        return self.said is self.asked.has_necrosis


def quadrants_of(seed: int, mpp: float = 0.5) -> list[AskedQuadrant]:
    """The four quadrants of the slide of this seed in its default size."""
    truth = slide_truth(seed)
    layout = SlideLayout(truth, width_um=WIDTH_UM, height_um=HEIGHT_UM)
    found = []
    for quadrant in QUADRANTS:
        rows, columns = quadrant_box(layout.tissue_mask(), quadrant)
        left, top, right, bottom = (
            edge * layout.cell_um / mpp for edge in (columns.start, rows.start, columns.stop, rows.stop)
        )
        box = (left, top, right - left, bottom - top)
        found.append(AskedQuadrant(seed, quadrant, box, truth.necrosis == quadrant))
    return found


def read_yes_no(text: str) -> bool | None:
    """Whether an answer begins with Yes or with No."""
    found = _FIRST_WORD.match(text)
    return None if found is None else found[1].lower() == "yes"


@dataclass(frozen=True)
class QuadrantScore:
    """How many quadrants were answered right, of those with necrosis and of those without."""

    having: Score
    others: Score

    @property
    def all(self) -> Score:
        """Of all that were asked about."""
        return Score(self.having.right + self.others.right, self.having.asked + self.others.asked)

    @property
    def is_reached(self) -> bool:
        """Whether the share of right ones is `LEAST_RIGHT`."""
        return self.all.asked > 0 and self.all.share >= LEAST_RIGHT

    def text(self) -> str:
        """In lines for people."""
        return (
            f'"{QUESTION}" by quadrant: {_share(self.all)} ± {self.all.margin:.1%}, wanted {LEAST_RIGHT:.0%}\n'
            f"with necrosis {_share(self.having)}, without {_share(self.others)}; "
            f'"No" to all would be right in {self.others.asked} of {self.all.asked}'
        )


def score_quadrants(answers: Sequence[QuadrantAnswer]) -> QuadrantScore:
    """The score of some answers."""
    right = {has: [it.is_right for it in answers if it.asked.has_necrosis is has] for has in (True, False)}
    return QuadrantScore(Score(sum(right[True]), len(right[True])), Score(sum(right[False]), len(right[False])))


def _share(score: Score) -> str:
    return f"{score.right} of {score.asked} right ({score.share:.1%})"
