"""Help while the small language model learns to answer with a letter: heads that say where what should be known.

To answer "B" a model has to find which option stands behind which letter, what the slide says, and which option that
is. With the last step as its only teacher the demo model needed more than its whole training time for it (a pilot
reached 0.73). So linear heads on the states between layers ask for the first two as well: for the letter and the
phrase at each option's last token after `OPTIONS_LAYER` layers, and for the true and the named phrase at the token
before the answer two layers before the last. The heads are left behind; what is served is a plain Llama.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from synthetic.questions.question import LETTERS
from training.language_model.tokenized import IGNORED, PHRASES

OPTIONS_LAYER: Final = 2
# One more than the letters: a phrase that is named for Yes or No has none.
_LETTER_CLASSES: Final = len(LETTERS) + 1


class Scaffold(nn.Module):
    """Heads for a language model of `width` with `layers` layers."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self._answers_layer = max(OPTIONS_LAYER, layers - 2)
        self.letter = nn.Linear(width, _LETTER_CLASSES)
        self.phrase = nn.Linear(width, len(PHRASES))
        self.true_phrase = nn.Linear(width, len(PHRASES))
        self.named_phrase = nn.Linear(width, len(PHRASES))

    def forward(self, states: Sequence[Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`states`: embeddings and every layer's output [B, T, width]; rows of `batch` as in `tokenized`."""
        options, answers = batch["options"], batch["answers"]
        option = _unit(states[OPTIONS_LAYER][options[:, 0], options[:, 1]])
        answer = _unit(states[self._answers_layer][answers[:, 0], answers[:, 1]])
        return {
            "letter": _mean_loss(self.letter(option), options[:, 2]),
            "phrase": _mean_loss(self.phrase(option), options[:, 3]),
            "true_phrase": _mean_loss(self.true_phrase(answer), answers[:, 2]),
            "named_phrase": _mean_loss(self.named_phrase(answer), answers[:, 3]),
        }


def _unit(states: Tensor) -> Tensor:
    """Root mean square 1, as the model's own norms make them: the residual stream grows with depth."""
    return functional.rms_norm(states.float(), states.shape[-1:], eps=1e-6)


def _mean_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Mean over the rows that have a class; 0 without any."""
    total = functional.cross_entropy(logits.float(), classes, ignore_index=IGNORED, reduction="sum")
    return total / (classes != IGNORED).sum().clamp(min=1)


def mean_of(losses: Mapping[str, Tensor]) -> Tensor:
    """The scaffold's share of the whole loss."""
    return torch.stack(list(losses.values())).mean()
