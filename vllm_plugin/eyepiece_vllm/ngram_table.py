"""Finds the token that would repeat an n-gram: one answer's table, updated token by token. It knows nothing of vLLM."""

from collections import defaultdict
from collections.abc import Sequence


class NgramTable:
    """The n-grams of a growing list of token ids, by their first n - 1 tokens.

    `generated` is vLLM's own list, which grows between calls; a step costs one look-up for each new token. The prompt
    is not in it: the published evaluation generates from embeddings, so transformers has no ids of the prompt either.
    """

    def __init__(self, size: int, generated: Sequence[int]) -> None:
        self._size = size
        self._generated = generated
        self._seen = 0
        self._followers: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)

    def banned(self) -> Sequence[int]:
        """Tokens that may not come next; one may be named more than once."""
        self._catch_up()
        beginning = len(self._generated) + 1 - self._size
        if beginning < 0:
            return ()
        return self._followers.get(tuple(self._generated[beginning:]), ())

    def _catch_up(self) -> None:
        if len(self._generated) < self._seen:  # vLLM took tokens back, e.g. after a lost cache block
            self._seen = 0
            self._followers.clear()
        for last in range(max(self._seen, self._size - 1), len(self._generated)):
            beginning = tuple(self._generated[last + 1 - self._size : last])
            self._followers[beginning].append(self._generated[last])
        self._seen = len(self._generated)
