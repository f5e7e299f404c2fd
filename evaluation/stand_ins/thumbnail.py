"""A stand-in that looks at the thumbnail: it answers by the truth of the drawn slide whose thumbnail is most alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.stand_ins.answers import answer_by, most_common
from evaluation.stand_ins.serve import Asked
from synthetic.slide_truth import SlideTruth


@dataclass(frozen=True)
class SeenSlide:
    """A slide that the stand-in has seen before, with what is true of it."""

    look: NDArray[np.float64]
    truth: SlideTruth


@dataclass(frozen=True)
class ThumbnailStandIn:
    """Knows some slides; without a picture, or before a blank one, it says what is most common among them."""

    seen: Sequence[SeenSlide]

    def __call__(self, asked: Asked) -> str:
        """The answer to the last text."""
        look = look_of(asked.pictures[0]) if asked.pictures else None
        return answer_by(self._truth(look), asked.texts[-1])

    def _truth(self, look: NDArray[np.float64] | None) -> SlideTruth:
        if look is None:
            return most_common([slide.truth for slide in self.seen])
        return min(self.seen, key=lambda slide: float(np.abs(slide.look - look).sum())).truth


def look_of(jpeg: bytes) -> NDArray[np.float64] | None:
    """Colours and their spread in the tissue, and how much of it is dark; None where there is no tissue."""
    import cv2

    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        return None
    picture = decoded.astype(np.float64) / 255
    tissue = picture[(picture.max(axis=2) - picture.min(axis=2)) > 0.08]
    if len(tissue) < 100:
        return None
    darkness = np.histogram(1 - tissue.mean(axis=1), bins=12, range=(0.0, 0.9))[0] / len(tissue)
    return np.asarray([*tissue.mean(axis=0), *tissue.std(axis=0), *darkness])
