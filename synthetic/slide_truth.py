"""The truth of a synthetic slide: drawn from its seed before a pixel is, and never read back from pixels.

Seeds below `FIRST_TRAINING_SEED` are for everybody; training draws its slides from seeds at and above it, so no slide
that `eyepiece make-slide` can write was ever trained on. Some combinations of attributes are held out as well.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

Pattern = Literal["glandular", "solid", "keratinising", "papillary", "lymphoid", "benign"]
Grade = Literal[1, 2, 3]
Mitoses = Literal["rare", "frequent"]
Lymphocytes = Literal["sparse", "dense"]
Stroma = Literal["fibrous", "loose"]
Quadrant = Literal["upper left", "upper right", "lower left", "lower right"]
# Share of the viable tissue that is tumour; the classes have gaps between them, so that a picture has one answer.
Extent = Literal["none", "low", "moderate", "high"]

PATTERNS: Final[tuple[Pattern, ...]] = get_args(Pattern)
GRADES: Final[tuple[Grade, ...]] = get_args(Grade)
QUADRANTS: Final[tuple[Quadrant, ...]] = get_args(Quadrant)
# Patterns whose nuclei are graded; lymphoid sheets and benign tissue have no grade.
GRADED: Final[tuple[Pattern, ...]] = ("glandular", "solid", "keratinising", "papillary")
EXTENT_RANGES: Final[dict[Extent, tuple[float, float]]] = {
    "none": (0.0, 0.0),
    "low": (0.14, 0.27),
    "moderate": (0.42, 0.56),
    "high": (0.72, 0.88),
}

FIRST_TRAINING_SEED: Final = 2**32


@dataclass(frozen=True)
class SlideTruth:
    """The attributes of one synthetic slide.

    `grade` is None where nothing is graded. `necrosis` is the quadrant, of the tissue's bounding box, in which the
    only necrosis lies, None without any. `tumour_fraction` is of the viable tissue's area, 0 … 1: necrosis counts
    neither as tumour nor as tissue.
    """

    seed: int
    pattern: Pattern
    grade: Grade | None
    mitoses: Mitoses
    lymphocytes: Lymphocytes
    stroma: Stroma
    extent: Extent
    tumour_fraction: float
    necrosis: Quadrant | None


def slide_truth(seed: int) -> SlideTruth:
    """The truth about the slide of this seed, whatever its size, µm/px or stain; every non-negative seed has one.

    Training seeds never give a combination of `is_held_out`.
    """
    rng = np.random.default_rng([seed, 0])
    while True:
        truth = _drawn(seed, rng)
        if seed < FIRST_TRAINING_SEED or not is_held_out(truth):
            return truth


def is_held_out(truth: SlideTruth) -> bool:
    """Whether training never saw this combination of pattern, lymphocytes, stroma and place of necrosis (a tenth)."""
    parts = (
        PATTERNS.index(truth.pattern),
        int(truth.lymphocytes == "dense"),
        int(truth.stroma == "loose"),
        0 if truth.necrosis is None else 1 + QUADRANTS.index(truth.necrosis),
    )
    return (3 * parts[0] + 5 * parts[1] + 7 * parts[2] + 2 * parts[3]) % 10 == 4


def _drawn(seed: int, rng: np.random.Generator) -> SlideTruth:
    pattern = PATTERNS[rng.integers(len(PATTERNS))]
    benign = pattern == "benign"
    # Drawn whether used or not, so that the attributes of a seed do not depend on each other's branches.
    grade = GRADES[rng.integers(len(GRADES))]
    frequent, dense, loose, necrotic = rng.random(4) < (0.5, 0.5, 0.5, 0.6)
    extent: Extent = ("low", "moderate", "high")[rng.integers(3)]
    quadrant = QUADRANTS[rng.integers(len(QUADRANTS))]
    within = rng.random()
    extent = "none" if benign else extent
    low, high = EXTENT_RANGES[extent]
    return SlideTruth(
        seed=seed,
        pattern=pattern,
        grade=grade if pattern in GRADED else None,
        mitoses="frequent" if frequent and not benign else "rare",
        lymphocytes="dense" if dense or pattern == "lymphoid" else "sparse",
        stroma="loose" if loose else "fibrous",
        extent=extent,
        tumour_fraction=round(low + (high - low) * within, 2),
        necrosis=quadrant if necrotic and not benign else None,
    )
