"""Beam search and several answers, which are not to be had here: the words that ask for them, and why."""

from collections.abc import Iterable
from typing import Final

from server.errors import InvalidRequest

# OpenAI's, vLLM's and transformers' names.
BEAM_OPTIONS: Final = frozenset(
    {
        "n",
        "best_of",
        "use_beam_search",
        "num_beams",
        "num_beam_groups",
        "num_return_sequences",
        "length_penalty",
        "early_stopping",
    }
)


def no_beams(names: Iterable[str]) -> InvalidRequest:
    """The refusal of a request that asks so."""
    return InvalidRequest(
        f"Beams and several answers are not possible ({', '.join(sorted(names))}): vLLM begins every step of a beam as "
        "a new prompt, so that penalties would not be the model's. Leave them out; temperature 0 takes the likeliest "
        "token each time."
    )
