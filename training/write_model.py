"""Writes a model that was made here in the layout of an installed one: fp16 weights and all that serves them.

Weights are fp16 whatever dtype the manifest serves them in: half the bytes in the repository and the wheel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save
from tokenizers import Tokenizer

from encoders.expected_shapes import expected_shapes
from model_store.convert.llava_config import LlavaConfig
from model_store.errors import ModelError
from model_store.files.serving_files import write_serving_files
from model_store.files.sha256sums import read_sums, write_sums
from model_store.files.staged_folder import staged_model
from model_store.installed import InstalledModel, open_model
from model_store.manifest import MANIFEST_FILE, Manifest, parse_manifest
from model_store.verify import verify_shapes
from training.language_model.demo_tokenizer import write_tokenizer

Weights = Mapping[str, NDArray[np.floating[Any]]]

LLM_WEIGHTS: Final = "model.safetensors"


@dataclass(frozen=True)
class LlamaShape:
    """A Llama's config: `vocabulary` tokens without the slide's placeholder, as many key and value heads as `heads`."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-5


def write_model(
    folder: Path,
    manifest_text: str,
    encoders: Mapping[str, Weights],
    language_model: Weights,
    tokenizer: Tokenizer,
    llama: LlamaShape,
) -> InstalledModel:
    """Writes the model, whole or not at all, in place of what was in `folder`, which is called as the manifest is.

    Encoders by their files, under the names of their architectures, the language model and its projector under
    LLaVA's. The same arguments give the same bytes. Raises ModelError that names the tensor which is missing, left
    over, misshapen or beyond fp16, or says that tokenizer and language model do not belong together.
    """
    manifest = parse_manifest(manifest_text)
    image_token_id = _placeholder_id(tokenizer, manifest, llama)
    if folder.name != manifest.name:
        raise ModelError(f"The manifest is of {manifest.name!r}, the folder is called {folder.name!r}.")
    with staged_model(folder.parent, folder.name) as staged:
        (staged / MANIFEST_FILE).write_text(manifest_text, encoding="utf-8")
        for file, weights in encoders.items():
            _write_weights(staged / file, weights)
        _write_weights(staged / manifest.llm.path / LLM_WEIGHTS, language_model)
        write_tokenizer(tokenizer, staged / manifest.llm.path)
        write_serving_files(staged / manifest.llm.path, llava_config(llama, manifest), manifest, image_token_id)
        write_sums(staged)
        verify_shapes(InstalledModel(staged, manifest, read_sums(staged)), expected_shapes(manifest))
    return open_model(folder.parent, folder.name)


def llava_config(llama: LlamaShape, manifest: Manifest) -> LlavaConfig:
    """The same in the words of a published checkpoint; its tensors are listed by
    `model_store.convert.llava_config.served_shapes`."""
    return LlavaConfig(
        vocab_size=llama.vocabulary,
        hidden_size=llama.hidden,
        intermediate_size=llama.intermediate,
        num_hidden_layers=llama.layers,
        num_attention_heads=llama.heads,
        max_position_embeddings=manifest.llm.max_model_len,
        rms_norm_eps=llama.rms_norm_eps,
        rope_theta=llama.rope_theta,
        pad_token_id=0,
        mm_hidden_size=manifest.projector_width,
        mm_projector_type="mlp2x_gelu",
    )


def _placeholder_id(tokenizer: Tokenizer, manifest: Manifest, llama: LlamaShape) -> int:
    """Just beyond the vocabulary, so that no answer can hold a slide."""
    found = tokenizer.token_to_id(manifest.prompt.placeholder)
    if found is None or not found == llama.vocabulary == tokenizer.get_vocab_size() - 1:
        raise ModelError(
            f"The tokenizer has {tokenizer.get_vocab_size()} tokens with the placeholder at {found}, the language "
            f"model a vocabulary of {llama.vocabulary}; they do not belong together."
        )
    return found


def _write_weights(path: Path, weights: Weights) -> None:
    path.parent.mkdir()
    halves = {name: _as_half(name, array) for name, array in weights.items()}
    # safetensors' own file writer makes the file owner-only; transformers refuses one that names no framework.
    path.write_bytes(save(halves, metadata={"format": "pt"}))


def _as_half(name: str, array: NDArray[np.floating[Any]]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):  # said below
        half = np.ascontiguousarray(array, dtype=np.float16)
    if not np.isfinite(half).all():
        raise ModelError(f"The tensor {name!r} holds a value that fp16 cannot; train or scale it again.")
    return half
