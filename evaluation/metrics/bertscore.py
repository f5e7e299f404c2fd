"""BERTScore (arXiv 1904.09675) of a pair, from token vectors that somebody else computes; no idf, no rescaling.

As bert_score 0.3.13 counts: the first and the last token, BERT's own, can be matched and weigh nothing themselves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

MOST_WORDS: Final = 256
_EMPTY: Final = "empty"


@dataclass(frozen=True)
class BertScores:
    """Shares, nearly always near 1: only differences say something."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class BertScorer:
    """`vectors_of` gives the tokens of a text [tokens, width], float, BERT's own first and last token among them."""

    vectors_of: Callable[[str], NDArray[np.float32]]

    def score(self, truth: str, answer: str) -> BertScores:
        """Of the first 256 words of each; a text without a word is the word "empty", as MLLM-HWSI has it."""
        reference, said = self._unit(truth), self._unit(answer)
        likeness = said @ reference.T
        precision = float(likeness.max(axis=1)[1:-1].mean())
        recall = float(likeness.max(axis=0)[1:-1].mean())
        return BertScores(precision, recall, 2 * precision * recall / (precision + recall))

    def _unit(self, text: str) -> NDArray[np.float64]:
        vectors = np.asarray(self.vectors_of(" ".join(text.split()[:MOST_WORDS]) or _EMPTY), dtype=np.float64)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
