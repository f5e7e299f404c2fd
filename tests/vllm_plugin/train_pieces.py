"""Trains a small SentencePiece model with the settings of Llama's: BPE, byte fallback, digits apart, blanks kept.

Run by the Python of the vLLM environment: `train_pieces.py <folder>` writes `<folder>/tokenizer.model`.
"""

import sys
from pathlib import Path

import sentencepiece

TEXT = """\
A chat between a curious human and an artificial intelligence assistant.
A chat between a curious user and an artificial intelligence assistant.
The assistant gives helpful, detailed, and polite answers to the human's questions.
USER: What is the histological type of the tumour? ASSISTANT: The tumour is an invasive ductal carcinoma.
USER: Which grade, and why? ASSISTANT: Grade 2, with 3 mitoses per 10 high power fields.
Is there necrosis? No necrosis is seen in the slide.   Glands:  tubules; stroma (yes!) 40%
"""


def main() -> None:
    """The vocabulary is small, so that much text falls back to single characters and bytes."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines() * 20),
        model_prefix=str(Path(sys.argv[1]) / "tokenizer"),
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=1.0,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )


if __name__ == "__main__":
    main()
