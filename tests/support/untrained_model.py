"""A tiny untrained model in the layout of a published one, for tests that need real files and no meaning.

It is called `demo`, as the packaged one is. Its slide tokens are narrower than its projector, and its tiles are wider
than the tile encoder's input, as in the published model, so that padding and cropping are exercised.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from encoders.expected_shapes import expected_shapes
from model_store.convert.llava_config import served_shapes
from model_store.installed import InstalledModel
from model_store.manifest import Manifest, parse_manifest
from training.language_model.demo_tokenizer import train_tokenizer
from training.seeded_weights import seeded_weights
from training.write_model import LlamaShape, Weights, llava_config, write_model

UNTRAINED_MANIFEST = """
name = "demo"
title = "Untrained"
notice = "Research use only, not a diagnosis: this model is untrained."
licence = "Apache-2.0"

[source]
repository = "tests"
revision = "seed-0"

[inputs.tiles.tiling]
target_mpp = 0.5
tile_px = 256
min_tissue_fraction = 0.1
order = "raster"
tissue_rule = "otsu-guarded-v2"

[inputs.tiles.tile_encoder]
kind = "timm"
timm_model = "vit_tiny_patch16_224"
timm_args = { depth = 2, num_classes = 0 }
input_px = 224
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
feature_dim = 192
dtype = "float32"
batch_tiles = 32
weights = "tile_encoder/model.safetensors"

[slide_stage]
kind = "longnet-pool"
in_chans = 192
embed_dim = 96
depth = 2
num_heads = 4
mlp_ratio = 4.0
slide_ngrids = 1000
tile_stride_px_level = "level0"
max_wsi_size = 262144
dilated_ratios = [1, 2, 4, 8, 16]
output = "wsi_llava_last_state_norm"
slide_tokens = 32
dtype = "float32"
weights = "slide_encoder/model.safetensors"

[projector]
kind = "mlp"
width = 128

[prompt]
kind = "llava"
template = "llava_v1"

[llm]
path = "llm"
served_name = "demo"
max_model_len = 2048
dtype = "float32"

[llm.generation]
temperature = 0.0
max_tokens = 48
"""

# What the prompts around a question say, and enough to answer with.
WORDS = """
    a an and are as at between by for from in into is it no not of on or shows the there this to with within without
    answer assistant artificial chat curious describe detailed gives helpful human intelligence polite question
    questions slide tissue image what which where how many much most
    adenocarcinoma atypia basal benign biopsy border carcinoma cell cells chromatin clear columnar cribriform cytoplasm
    dense diffuse epithelial epithelium fat fibrous field focal gland glands glandular grade growth high histological
    infiltrate inflammation invasion keratin large layer lesion low lumen lymphocytes malignant margin marked mild
    mitoses mitotic moderate mucin mucosa muscle necrosis nests normal nuclear nuclei nucleoli papillary pattern
    pleomorphic poorly present reactive region sheets smooth solid spindle squamous stroma surface tubular tubules
    tumour type uniform vascular vesicular vessels well
""".split()  # noqa: SIM905 - a literal would be one line per word


def untrained_manifest() -> Manifest:
    """The manifest of `untrained_model`."""
    return parse_manifest(UNTRAINED_MANIFEST)


def untrained_tokenizer() -> Tokenizer:
    """A token for each word, with its leading space, and every byte."""
    return train_tokenizer(f" {word}" for word in WORDS)


def changed_manifest(*changes: tuple[str, str]) -> str:
    """The text of the manifest with each first string, which must be in it, replaced by the second."""
    text = UNTRAINED_MANIFEST
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


def untrained_model(models_dir: Path, seed: int = 0, text: str = UNTRAINED_MANIFEST) -> InstalledModel:
    """Writes it under `models_dir`; the same seed and manifest give the same bytes."""
    manifest, tokenizer = parse_manifest(text), untrained_tokenizer()
    llama = LlamaShape(tokenizer.get_vocab_size() - 1, hidden=128, layers=2, heads=4, intermediate=352)
    rng = np.random.default_rng(seed)
    shapes = expected_shapes(manifest)
    return write_model(
        models_dir / manifest.name,
        text,
        {file: seeded_weights(tensors, rng) for file, tensors in shapes.items()},
        untrained_language_model(manifest, llama, rng, _word_ids(tokenizer)),
        tokenizer,
        llama,
    )


def untrained_language_model(
    manifest: Manifest, llama: LlamaShape, rng: np.random.Generator, words: Sequence[int]
) -> Weights:
    """Makes random output decided and readable: only `words` get a logit, and one is seldom followed by itself.

    The output row of each word is the embedding of another word less its own, so the residual stream walks through
    the words and attention, which sees the slide, makes it jump. It stays meaningless.
    """
    weights = seeded_weights(served_shapes(llava_config(llama, manifest)), rng)
    embedding = weights["model.embed_tokens.weight"]
    # Large enough beside what the layers add that the walk shows; by eye, 1 repeats words and 8 ignores the slide.
    embedding *= 4
    order: NDArray[np.int64] = rng.permutation(words)
    output = np.zeros_like(embedding)
    output[order] = embedding[np.roll(order, 1)] - embedding[order]
    return {**weights, "lm_head.weight": output}


def _word_ids(tokenizer: Tokenizer) -> list[int]:
    ids = (tokenizer.encode(f" {word}", add_special_tokens=False).ids for word in WORDS)
    return [pieces[0] for pieces in ids if len(pieces) == 1]
