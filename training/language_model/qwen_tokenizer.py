"""A small tokenizer in the layout of a Qwen's: byte-level BPE with its special tokens, the slide's place among them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

# Their places are their ids: the second to last ends a turn.
TOKENS: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>")
END_OF_TURN: Final = 2


def write_qwen_tokenizer(corpus: Iterable[str], folder: Path, most_tokens: int = 30_000) -> int:
    """Trains it, the same on every machine for the same corpus, and writes what transformers' AutoTokenizer loads;
    how many tokens it has."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=most_tokens,
        special_tokens=[AddedToken(token, normalized=False, special=True) for token in TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"eos_token": TOKENS[END_OF_TURN], "pad_token": TOKENS[0]}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **tokens}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tokenizer.get_vocab_size()
