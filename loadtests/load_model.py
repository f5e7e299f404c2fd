"""A model to load a server with: slides of published size, a language model small enough for a CPU, random weights.

What costs the API its time is the size of an embedding (576 × 768 halves, as WSI-LLaVA's); what costs vLLM its time is
the language model. So the first is as published, and the second a choice. Answers are words without a meaning, as
many as are asked for.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from encoders.expected_shapes import expected_shapes
from model_store.convert.llava_config import served_shapes
from model_store.errors import ModelError
from model_store.installed import InstalledModel, open_model
from model_store.manifest import Manifest, parse_manifest
from training.language_model.demo_tokenizer import train_tokenizer
from training.seeded_weights import seeded_weights
from training.write_model import LlamaShape, Weights, llava_config, write_model

SLIDE_TOKENS, SLIDE_WIDTH = 576, 768
TILE_FEATURE_DIM = 192
# About one token each. Answers are made of them, questions partly.
WORDS = """
    adenocarcinoma atypia benign biopsy border carcinoma cell chromatin columnar cribriform cytoplasm dense diffuse
    epithelium fibrous gland grade growth infiltrate invasion keratin lesion lymphocytes malignant margin mitoses
    moderate mucosa necrosis nests normal nuclei nucleoli papillary pattern region sheets smooth solid spindle squamous
    stroma tumour uniform vascular
""".split()  # noqa: SIM905 - a literal would be one line per word
# LLaVA's system sentence and what questions are made of, so that a prompt has as many tokens as in English.
_CORPUS = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the human's questions. USER: ASSISTANT: What does this slide show in the region of ?"
)
_MANIFEST = """
name = "{name}"
title = "For load tests"
notice = "Research use only, not a diagnosis: this model is untrained."
licence = "Apache-2.0"

[source]
repository = "loadtests"
revision = "1"

[inputs.tiles.tiling]
target_mpp = 0.5
tile_px = 224
min_tissue_fraction = 0.1
order = "raster"
tissue_rule = "otsu-guarded-v2"

[inputs.tiles.tile_encoder]
kind = "timm"
timm_model = "vit_tiny_patch16_224"
timm_args = {{ depth = 1, num_classes = 0 }}
input_px = 224
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
feature_dim = {tile_feature_dim}
dtype = "float32"
batch_tiles = 32
weights = "tile_encoder/model.safetensors"

[slide_stage]
kind = "longnet-pool"
in_chans = {tile_feature_dim}
embed_dim = {slide_width}
depth = 1
num_heads = 16
mlp_ratio = 4.0
slide_ngrids = 1000
tile_stride_px_level = "level0"
max_wsi_size = 262144
dilated_ratios = [1, 2, 4, 8, 16]
output = "wsi_llava_last_state_norm"
slide_tokens = {slide_tokens}
dtype = "float32"
weights = "slide_encoder/model.safetensors"

[projector]
kind = "mlp"
width = 1024

[prompt]
kind = "llava"
template = "llava_v1"

[llm]
path = "llm"
served_name = "{name}"
max_model_len = 2048
dtype = "float32"

[llm.generation]
temperature = 0.0
max_tokens = 48
"""


@dataclass(frozen=True)
class Size:
    """Of the language model."""

    hidden: int
    layers: int
    heads: int
    intermediate: int


SIZES = {
    "tiny": Size(128, 2, 4, 352),
    # 25 million parameters: on two cores a prompt with a slide takes about as long as 7 billion take on a GPU.
    "small": Size(512, 8, 8, 1376),
}


def load_model(models_dir: Path, size: str) -> InstalledModel:
    """The model `load-<size>`, written on its first use; always the same bytes."""
    name = f"load-{size}"
    try:
        return open_model(models_dir, name)
    except ModelError:
        return _write(models_dir / name, name, SIZES[size])


def manifest_text(name: str) -> str:
    """The manifest."""
    return _MANIFEST.format(
        name=name, tile_feature_dim=TILE_FEATURE_DIM, slide_width=SLIDE_WIDTH, slide_tokens=SLIDE_TOKENS
    )


def _write(folder: Path, name: str, size: Size) -> InstalledModel:
    text = manifest_text(name)
    manifest = parse_manifest(text)
    tokenizer = train_tokenizer([_CORPUS, *(f" {word}" for word in WORDS)] * 2)
    llama = LlamaShape(tokenizer.get_vocab_size() - 1, size.hidden, size.layers, size.heads, size.intermediate)
    rng, shapes = np.random.default_rng(0), expected_shapes(manifest)
    words = sorted({tokenizer.encode(f" {word}", add_special_tokens=False).ids[-1] for word in WORDS})
    return write_model(
        folder,
        text,
        {file: seeded_weights(tensors, rng) for file, tensors in shapes.items()},
        _language_model(manifest, llama, rng, words),
        tokenizer,
        llama,
    )


def _language_model(manifest: Manifest, llama: LlamaShape, rng: np.random.Generator, words: list[int]) -> Weights:
    """Only words have a logit that is not 0, so no answer ends before its time."""
    weights = seeded_weights(served_shapes(llava_config(llama, manifest)), rng)
    head = np.zeros_like(weights["lm_head.weight"])
    head[words] = weights["lm_head.weight"][words]
    return {**weights, "lm_head.weight": head}
