"""ROUGE-L as the package `rouge` 1.0.1 computes it, without its recursion: equal results at any length.

The package splits both texts at every full stop, takes for each sentence of the reference the longest common
subsequence with each sentence of the answer, and counts the distinct words of them all against the distinct words of
each text. So "3.5" is two sentences and a repeated word counts once: this is not Lin's ROUGE-L (2004), and is kept
because published numbers are of it.
"""

from collections.abc import Sequence

import numpy as np


def rouge_l_words(reference: str, answer: str) -> float:
    """The F measure, 2pr / (p + r + 1e-8), 0 … 1; 0 where either text has no sentence."""
    references, answers = _sentences(reference), _sentences(answer)
    if not references or not answers:
        return 0.0
    common: set[str] = set()
    for sentence in references:
        for said in answers:
            common.update(common_words(sentence, said))
    recall = len(common) / len({word for sentence in references for word in sentence})
    precision = len(common) / len({word for sentence in answers for word in sentence})
    return 2.0 * (precision * recall / (precision + recall + 1e-8))


def common_words(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """A longest common subsequence, last word first; of several the one that the package's backtracking takes."""
    lengths = _lengths(first, second)
    row, column = len(first), len(second)
    words: list[str] = []
    while row and column:
        if first[row - 1] == second[column - 1]:
            words.append(first[row - 1])
            row, column = row - 1, column - 1
        elif lengths[row - 1, column] > lengths[row, column - 1]:
            row -= 1
        else:
            column -= 1
    return words


def _lengths(first: Sequence[str], second: Sequence[str]) -> np.ndarray:
    """Lengths of longest common subsequences of all prefixes [len(first) + 1, len(second) + 1]."""
    numbers = {word: index for index, word in enumerate(dict.fromkeys([*first, *second]))}
    ids = np.array([numbers[word] for word in second], dtype=np.int64)
    lengths = np.zeros((len(first) + 1, len(second) + 1), dtype=np.int64)
    for row, word in enumerate(first, start=1):
        above = lengths[row - 1]
        # A cell is its left neighbour or better, and never better by more than one: a running maximum of the rest.
        lengths[row, 1:] = np.maximum.accumulate(np.maximum(above[1:], above[:-1] + (ids == numbers[word])))
    return lengths


def _sentences(text: str) -> list[list[str]]:
    """Words of every part between full stops. A part of blanks alone is one empty word, as in the package."""
    return [" ".join(part.split()).split(" ") for part in text.split(".") if part]
