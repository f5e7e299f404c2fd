"""Plans and judges the examination of evidence and familiarity. Pure: nobody is asked here.

"Where is the necrosis?" of drawn slides, which have their only necrosis in one quadrant of their tissue, or none. Where
there is some, the strongest cell has to lie in that quadrant; where there is none, and where the tiles have changed
places, no part may stand out. And the model was made for all of them, whatever their stain and scanner.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Final, Literal

from evaluation.exam import Specimen
from evaluation.quadrants import quadrants_of
from evaluation.score import Score
from synthetic.slide_truth import slide_truth

QUESTION: Final = "Where is the necrosis?"
LEAST_IN_QUADRANT: Final = 0.90
LEAST_SILENT: Final = 0.95
LEAST_FAMILIAR: Final = 0.98
# Beyond the seeds of the statistics of what is familiar (training.familiar_slides).
FIRST_SEED: Final = 2_000_600_000

Kind = Literal["necrosis", "none", "shuffled", "finer", "restained"]


def plan(slides: int, first_seed: int) -> list[tuple[Kind, Specimen]]:
    """`slides` of each of the first three kinds, and a quarter of the last two, which are looked at alone."""
    having = list(islice((seed for seed in count(first_seed) if slide_truth(seed).necrosis), slides))
    lacking = list(islice((seed for seed in count(first_seed) if not slide_truth(seed).necrosis), slides))
    quarter = max(1, slides // 4)
    return [
        *(("necrosis", Specimen(seed)) for seed in having),
        *(("none", Specimen(seed)) for seed in lacking),
        *(("shuffled", Specimen(seed, "shuffled")) for seed in having),
        *(("finer", Specimen(seed, "finer")) for seed in having[:quarter]),
        *(("restained", Specimen(seed, "restained")) for seed in having[:quarter]),
    ]


@dataclass(frozen=True)
class SeenEvidence:
    """What came of one slide: the centre of the strongest cell in level-0 pixels, None where nothing stands out, what
    it cost, and whether the slide is taken for familiar; `answer` None where none was asked for."""

    kind: Kind
    seed: int
    answer: str | None
    strongest: tuple[float, float] | None
    prefill_tokens: int
    total_ms: float
    is_familiar: bool

    @property
    def is_right(self) -> bool:
        """Whether the evidence is what it has to be."""
        return self.strongest is None if self.kind != "necrosis" else self._lies_in_the_quadrant

    @property
    def _lies_in_the_quadrant(self) -> bool:
        if self.strongest is None:
            return False
        x, y = self.strongest
        box = next(it.box for it in quadrants_of(self.seed) if it.has_necrosis)
        return box[0] <= x < box[0] + box[2] and box[1] <= y < box[1] + box[3]


@dataclass(frozen=True)
class EvidenceScores:
    """How many were right, by kind, and how many slides were taken for familiar."""

    by_kind: dict[Kind, Score]
    familiar: Score

    @property
    def is_reached(self) -> bool:
        """Whether every share is what it has to be."""
        wanted = {"necrosis": LEAST_IN_QUADRANT, "none": LEAST_SILENT, "shuffled": LEAST_SILENT}
        evidence = all(score.asked and score.share >= wanted[kind] for kind, score in self.by_kind.items())
        return evidence and self.familiar.share >= LEAST_FAMILIAR

    def lines(self) -> Iterator[str]:
        """For people."""
        said: dict[Kind, str] = {
            "necrosis": "necrosis: the strongest cell lies in its quadrant",
            "none": "no necrosis: no part stands out",
            "shuffled": "tiles shuffled: no part stands out",
        }
        for kind, score in self.by_kind.items():
            yield f"{said[kind]:<52} {score.right} of {score.asked}"
        said_of_all = "taken for familiar, other stains and 0.25 µm/px too"
        yield f"{said_of_all:<52} {self.familiar.right} of {self.familiar.asked}"


def score(seen: Sequence[SeenEvidence]) -> EvidenceScores:
    """The scores of all that was seen."""
    kinds: tuple[Kind, ...] = ("necrosis", "none", "shuffled")
    by_kind = {kind: [it.is_right for it in seen if it.kind == kind] for kind in kinds}
    drawn = [it.is_familiar for it in seen if it.kind != "shuffled"]
    return EvidenceScores(
        {kind: Score(sum(right), len(right)) for kind, right in by_kind.items()}, Score(sum(drawn), len(drawn))
    )
