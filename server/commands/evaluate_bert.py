"""A BERT from a folder, for BERTScore: the only part of an evaluation that needs transformers and torch."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import encoders.tile_encoder.torchvision_ops as torchvision_ops  # noqa: F401 - before transformers, which imports torchvision
from evaluation.metrics.bertscore import BertScorer
from server.commands.outcome import CommandError, ExitCode

# Where a tokenizer states no length of its own.
_MOST_TOKENS = 512


def bert_scorer(folder: Path, layer: int) -> BertScorer:
    """The scorer that reads a layer's output; 1 is the first layer's.

    Raises:
        CommandError: the folder holds no BERT, or the BERT has fewer layers.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
    except (OSError, ValueError) as error:
        raise CommandError(f"{folder.name} holds no BERT that can be read.", ExitCode.USAGE) from error
    if not 1 <= layer <= model.config.num_hidden_layers:
        raise CommandError(f"The BERT has {model.config.num_hidden_layers} layers, not {layer}.", ExitCode.USAGE)
    most = min(int(tokenizer.model_max_length), _MOST_TOKENS)

    @lru_cache(4096)
    def vectors_of(text: str) -> NDArray[np.float32]:
        ids = tokenizer(text, truncation=True, max_length=most, return_tensors="pt")
        with torch.inference_mode():
            states = model(**ids, output_hidden_states=True).hidden_states
        return np.asarray(states[layer][0].float().numpy())

    return BertScorer(vectors_of)
