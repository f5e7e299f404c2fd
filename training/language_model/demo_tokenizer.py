"""The demo model's own small tokenizer: byte-level BPE over what the synthetic world is asked and answers.

What somebody types in capitals is read in small letters: a word in capitals would be spelt letter by letter, and a
small model that learned to read it so was wrong about every third question.

It is in the layout of a Vicuna checkpoint in what matters to a server: `<s>` 1, `</s>` 2, and `<image>` an added
special token whose id is just beyond the language model's vocabulary.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from string import ascii_uppercase
from typing import Final

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

UNKNOWN: Final = "<unk>"
BOS: Final = "<s>"
EOS: Final = "</s>"
PLACEHOLDER: Final = "<image>"
# BPE reaches one token per word of the corpus well below this; the limit only guards the corpus' growth.
MAX_VOCABULARY: Final = 1536
# A quadrant is one word, a digit is always one, and a line break never joins what stands around it.
_WORD: Final = r" ?(?:upper|lower) (?:left|right)| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s"
# Of Unicode's private use: they stand for the template's own words, and mark a capital beside another, for a moment.
_KEPT: Final = {"USER:": "\ue000", "ASSISTANT:": "\ue001"}
_BESIDE: Final = "\ue002"


def train_tokenizer(corpus: Iterable[str]) -> Tokenizer:
    """The same tokenizer on every machine for the same corpus: the trainer breaks ties by symbol."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = _small_letters_for_words_in_capitals()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=MAX_VOCABULARY,
        special_tokens=[UNKNOWN, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 1)])
    tokenizer.add_special_tokens([AddedToken(PLACEHOLDER, normalized=False)])
    return tokenizer


def _small_letters_for_words_in_capitals() -> normalizers.Sequence:
    """IS IT? becomes is it? – pH and A. stay. No replacement knows a capital's small letter: there is one for each."""
    kept = [normalizers.Replace(word, mark) for word, mark in _KEPT.items()]
    marked = normalizers.Replace(Regex("(?<=[A-Z])(?=[A-Z])"), _BESIDE)
    small = [
        normalizers.Replace(Regex(f"{letter}(?={_BESIDE})|(?<={_BESIDE}){letter}"), letter.lower())
        for letter in ascii_uppercase
    ]
    given_back = [normalizers.Replace(mark, word) for word, mark in _KEPT.items()]
    return normalizers.Sequence([*kept, marked, *small, normalizers.Replace(_BESIDE, ""), *given_back])


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """`tokenizer.json` and `tokenizer_config.json`, which transformers' AutoTokenizer loads."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "unk_token": UNKNOWN,
        # Published Vicuna checkpoints pad with the unknown token too.
        "pad_token": UNKNOWN,
        "additional_special_tokens": [PLACEHOLDER],
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
