"""The demo model's language model folder, written as files: a tiny Llama and projector under LLaVA's tensor names."""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model_store.chat_template import chat_template
from model_store.chunk_prefix import chunk_prefix
from model_store.manifest import Manifest
from training.demo_tokenizer import PLACEHOLDER, train_tokenizer, word_ids, write_tokenizer
from training.seeded_weights import Shapes, seeded_weights, write_weights

HIDDEN: Final = 128
LAYERS: Final = 2
HEADS: Final = 4
INTERMEDIATE: Final = 352


def write_language_model(folder: Path, manifest: Manifest, rng: np.random.Generator) -> None:
    """Everything vLLM needs to serve the folder: weights, config, tokenizer, chat template, generation defaults."""
    tokenizer = train_tokenizer()
    vocabulary = tokenizer.get_vocab_size(with_added_tokens=True) - 1  # the placeholder stands outside
    weights = seeded_weights(_shapes(vocabulary, manifest.llm.projector_width), rng)
    _speak_in_words(weights, rng.permutation(word_ids(tokenizer)))
    write_weights(folder / "model.safetensors", weights)
    write_tokenizer(tokenizer, folder)
    _write_json(folder / "config.json", _config(manifest, vocabulary))
    # No max_new_tokens: vLLM would make it a limit for every request.
    _write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    template = chat_template(manifest.llm.prompt_template, chunk_prefix(folder))
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def _speak_in_words(weights: dict[str, NDArray[np.float32]], words: NDArray[np.int64]) -> None:
    """Makes random output readable: only whole words get a logit, and a word is seldom followed by itself.

    The output row of each word is the embedding of another word less its own, so the residual stream walks through
    the words in the order given and attention, which sees the slide, makes it jump. It stays meaningless.
    """
    embedding = weights["model.embed_tokens.weight"]
    # Large enough beside what the layers add that the walk shows; by eye, 1 repeats words and 8 ignores the slide.
    embedding *= 4
    output = np.zeros_like(embedding)
    output[words] = embedding[np.roll(words, 1)] - embedding[words]
    weights["lm_head.weight"] = output


def _shapes(vocabulary: int, projector_width: int) -> Shapes:
    layers = (shape for layer in range(LAYERS) for shape in _layer_shapes(f"model.layers.{layer}").items())
    return {
        "model.embed_tokens.weight": (vocabulary, HIDDEN),
        **dict(layers),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (vocabulary, HIDDEN),
        "model.mm_projector.0.weight": (HIDDEN, projector_width),
        "model.mm_projector.0.bias": (HIDDEN,),
        "model.mm_projector.2.weight": (HIDDEN, HIDDEN),
        "model.mm_projector.2.bias": (HIDDEN,),
    }


def _layer_shapes(prefix: str) -> Shapes:
    attention = {f"{prefix}.self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"}
    return attention | {
        f"{prefix}.mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
        f"{prefix}.mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
        f"{prefix}.mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
        f"{prefix}.input_layernorm.weight": (HIDDEN,),
        f"{prefix}.post_attention_layernorm.weight": (HIDDEN,),
    }


def _config(manifest: Manifest, vocabulary: int) -> dict[str, Any]:
    return {
        "architectures": ["WsiLlavaForConditionalGeneration"],
        "model_type": "wsi_llava",
        "dtype": manifest.llm.dtype,
        "image_token": PLACEHOLDER,
        "image_token_index": vocabulary,
        "slide_token_width": manifest.slide_encoder.embed_dim,
        "mm_hidden_size": manifest.llm.projector_width,
        "mm_projector_type": "mlp2x_gelu",
        "max_slide_tokens": manifest.slide_encoder.slide_tokens,
        "tie_word_embeddings": False,
        "text_config": _llama_config(manifest, vocabulary),
    }


def _llama_config(manifest: Manifest, vocabulary: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": manifest.llm.dtype,
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "max_position_embeddings": manifest.llm.max_model_len,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
