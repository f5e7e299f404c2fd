"""A tiny untrained model whose slides take a second or two each on a CPU: long enough to be hit in the middle."""

from pathlib import Path

import numpy as np
from untrained_model import UNTRAINED_MANIFEST, WORDS, untrained_language_model, untrained_tokenizer

from encoders.expected_shapes import expected_shapes
from model_store.installed import InstalledModel
from model_store.manifest import parse_manifest
from training.seeded_weights import seeded_weights
from training.write_model import LlamaShape, write_model

# Not `demo`: that name is installed anew from what ships with Eyepiece.
NAME = "chaos"
_CHANGES = (
    ('name = "demo"', f'name = "{NAME}"'),  # the served name too
    ("depth = 2, num_classes", "depth = 16, num_classes"),
    ("embed_dim = 96\ndepth = 2", "embed_dim = 96\ndepth = 64"),
    # Many batches, so that there is a moment between any two of them.
    ("batch_tiles = 32", "batch_tiles = 2"),
)


def slow_model(models_dir: Path) -> InstalledModel:
    """Writes it under `models_dir`; always the same bytes."""
    text = slow_manifest()
    manifest, tokenizer = parse_manifest(text), untrained_tokenizer()
    llama = LlamaShape(tokenizer.get_vocab_size() - 1, hidden=128, layers=2, heads=4, intermediate=352)
    rng, shapes = np.random.default_rng(0), expected_shapes(manifest)
    words = {tokenizer.encode(f" {word}", add_special_tokens=False).ids[-1] for word in WORDS}
    return write_model(
        models_dir / NAME,
        text,
        seeded_weights(shapes.tile_encoder, rng),
        seeded_weights(shapes.slide_encoder, rng),
        untrained_language_model(manifest, llama, rng, sorted(words)),
        tokenizer,
        llama,
    )


def slow_manifest() -> str:
    """The untrained model's manifest, with a deeper tile encoder and small batches."""
    text: str = UNTRAINED_MANIFEST
    for old, new in _CHANGES:
        assert old in text, old
        text = text.replace(old, new)
    return text
