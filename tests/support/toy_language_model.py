"""A language model of a few thousand weights whose tokenizer and projector are the toy checkpoint's."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from toy_checkpoint import HEADS, HIDDEN, INNER, LAYERS

from training.language_model.low_rank import LowRank, add_low_rank
from training.language_model.slide_language_model import SlideLanguageModel
from training.write_model import LlamaShape

VOCABULARY = 30
PROJECTOR_WIDTH = 24
TOY_LOW_RANK = LowRank(rank=4, alpha=8, dropout=0.1)


def toy_language_model(
    low_rank: LowRank | None = None, vocabulary: int = VOCABULARY, projector_width: int = PROJECTOR_WIDTH
) -> SlideLanguageModel:
    torch.manual_seed(3)
    shape = LlamaShape(vocabulary, HIDDEN, LAYERS, HEADS, INNER)
    model = SlideLanguageModel(shape, projector_width, scaffold=False)
    if low_rank is not None:
        add_low_rank(model, low_rank)
    return model


def toy_batch(vocabulary: int = VOCABULARY, width: int = 20) -> dict[str, Tensor]:
    """Two conversations about slides of three tokens; the second is shorter by two."""
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(3, vocabulary, (2, 9), generator=generator)
    ids[0, 1:4] = ids[1, 2:5] = vocabulary
    weights = torch.zeros(2, 9)
    weights[0, 6:], weights[1, 5:7] = 1.0, 0.5
    return {"ids": ids, "weights": weights, "slide_tokens": torch.randn(2, 3, width, generator=generator)}


class OneBatch:
    """A task that gives the toy batch each time."""

    def __init__(self, batch: Mapping[str, Tensor]) -> None:
        self._batch = batch

    def batch(self, step: int, rank: int, ranks: int) -> Mapping[str, Tensor]:
        return self._batch

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"loss": model(batch)["answers"]}
