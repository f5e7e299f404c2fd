"""What leaving parts of a slide out does to an answer, in numbers; nothing is asked here.

For each cell an area, the cell with those around it, is left out, and beside it as many tiles from anywhere (the
control). The drop of a cell is the mean of the drops of all areas that it lies in, in nats of the answer's
log-likelihood; likewise its control's. A cell stands out when its drop is beyond all that the controls show, by far.
"""

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from encoders.evidence.cells import Cell, around
from server.asking.answer_scores import FirstToken

# One e-fold of the likelihood. In drawn slides whose tiles have changed places half of it was seen, where a few tiles
# that the answer rests on lie together by chance; necrosis in its place gives several.
LEAST_DROP: Final = 1.0
# Beyond the largest drop of a control: so many times its distance from their middle.
_BEYOND: Final = 3.0
CAPTION: Final = (
    "How much the support for this very answer falls when an area around the cell is left out of the slide, beside as "
    "much tissue from anywhere. Not a segmentation, and not a diagnosis."
)
_YES_NO = ("Yes", "No")
_OPTION = re.compile(r"(?:^|\s)\(?([A-H])[.):]\s")
_FIRST_WORD = re.compile(r"\W*(\w+)")


@dataclass(frozen=True)
class Choice:
    """One of the answers to a closed question, and its share of their probability; `without` an area."""

    choice: str
    probability: float
    without: float | None = None


@dataclass(frozen=True)
class AreaDrops:
    """Of one cell: what leaving its area out takes from the answer, and what the control does."""

    area: float
    control: float
    choices: tuple[Choice, ...] = ()


@dataclass(frozen=True)
class CellEvidence:
    """Of one cell: mean drops over the areas that hold it."""

    cell: Cell
    drop: float
    control: float
    stands_out: bool
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Evidence:
    """Every cell, and how far a drop has to reach to stand out."""

    cells: tuple[CellEvidence, ...]
    threshold: float

    @property
    def strongest(self) -> tuple[str, ...]:
        """Those that stand out, the strongest first."""
        found = [it for it in self.cells if it.stands_out]
        return tuple(it.cell.name for it in sorted(found, key=lambda it: -it.drop))

    @property
    def finding(self) -> str:
        """In words."""
        if not self.strongest:
            return "No part stands out."
        count = len(self.strongest)
        return f"{count} of {len(self.cells)} cells {'stands' if count == 1 else 'stand'} out."


def weigh(cells: Sequence[Cell], drops: Mapping[str, AreaDrops]) -> Evidence:
    """The evidence that the drops of all areas are."""
    means: list[tuple[Cell, float, float]] = []
    for cell in cells:
        near = [drops[it.name] for it in around(cells, cell)]
        means.append((cell, statistics.fmean(it.area for it in near), statistics.fmean(it.control for it in near)))
    threshold = threshold_of([control for _, _, control in means])
    found = (
        CellEvidence(cell, drop, control, drop > threshold, drops[cell.name].choices) for cell, drop, control in means
    )
    return Evidence(tuple(found), threshold)


def threshold_of(controls: Sequence[float]) -> float:
    """Beyond it a drop stands out."""
    most, middle = max(controls), statistics.median(controls)
    return max(LEAST_DROP, most + _BEYOND * (most - middle))


def choices_of(question: str, answer: str) -> tuple[str, ...]:
    """The answers that a closed question has, in their order; empty for an open one."""
    found = _FIRST_WORD.match(answer)
    first = "" if found is None else found[1]
    if first.capitalize() in _YES_NO:
        return _YES_NO
    options = tuple(dict.fromkeys(_OPTION.findall(question)))
    return options if len(options) > 1 and first in options else ()


def shares(choices: Sequence[str], first: FirstToken) -> dict[str, float]:
    """How the choices share the probability of a first token; one that vLLM does not name has none."""
    said = {choice: first.probabilities.get(choice, 0.0) for choice in choices}
    whole = sum(said.values())
    return {choice: probability / whole if whole else 0.0 for choice, probability in said.items()}
