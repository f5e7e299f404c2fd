"""The `config.json` of a LLaVA checkpoint: what is needed of it, strictly, and the one that is served instead."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from model_store.errors import ModelError
from model_store.files.checkpoint_files import read_json
from model_store.files.write_safetensors import Shape
from model_store.manifest import Manifest, Positive, PositiveFloat


class LlavaConfig(BaseModel):
    """What the reference's config says of tensors and computation; a value we cannot serve is an error.

    Other keys (training, CLIP, anyres images) do not change what is served.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    vocab_size: Positive
    hidden_size: Positive
    intermediate_size: Positive
    num_hidden_layers: Positive
    num_attention_heads: Positive
    num_key_value_heads: Positive | None = None
    max_position_embeddings: Positive = 2048  # of Llama, as for the three below
    rms_norm_eps: PositiveFloat = 1e-6
    rope_theta: PositiveFloat = 10_000.0
    rope_scaling: None = None
    hidden_act: Literal["silu"] = "silu"
    attention_bias: Literal[False] = False
    mlp_bias: Literal[False] = False
    tie_word_embeddings: Literal[False] = False
    bos_token_id: int = 1
    eos_token_id: int = 2
    pad_token_id: int | None = None
    mm_hidden_size: Positive
    mm_projector_type: Literal["mlp2x_gelu"]
    mm_use_im_start_end: Literal[False] = False
    mm_use_im_patch_token: Literal[False] = False
    mm_patch_merge_type: Literal["flat"] = "flat"

    @property
    def key_value_width(self) -> int:
        """Rows of k_proj and v_proj."""
        heads = self.num_key_value_heads or self.num_attention_heads
        return self.hidden_size // self.num_attention_heads * heads


def read_llava_config(path: Path, projector_width: int) -> LlavaConfig:
    """The checkpoint's config; raises ModelError naming the first key that is wrong or cannot be served."""
    try:
        config = LlavaConfig.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ModelError(f"The checkpoint's config.json is wrong at {first['loc'][0]!r}: {first['msg']}.") from error
    if config.mm_hidden_size != projector_width:
        raise ModelError(
            f"The checkpoint's config.json says mm_hidden_size {config.mm_hidden_size}, the manifest says "
            f"projector_width {projector_width}: use the manifest of this checkpoint."
        )
    return config


def llava_shapes(config: LlavaConfig) -> dict[str, Shape]:
    """Name and shape of every served tensor: a Llama's and the projector's, under LLaVA's names."""
    hidden = config.hidden_size
    layers = (_layer_shapes(config, f"model.layers.{number}") for number in range(config.num_hidden_layers))
    return {
        "model.embed_tokens.weight": (config.vocab_size, hidden),
        **{name: shape for layer in layers for name, shape in layer.items()},
        "model.norm.weight": (hidden,),
        "lm_head.weight": (config.vocab_size, hidden),
        "model.mm_projector.0.weight": (hidden, config.mm_hidden_size),
        "model.mm_projector.0.bias": (hidden,),
        "model.mm_projector.2.weight": (hidden, hidden),
        "model.mm_projector.2.bias": (hidden,),
    }


def served_config(config: LlavaConfig, manifest: Manifest, image_token_id: int) -> dict[str, Any]:
    """The `config.json` that the vLLM plugin reads."""
    return {
        "architectures": ["WsiLlavaForConditionalGeneration"],
        "model_type": "wsi_llava",
        "dtype": manifest.llm.dtype,
        "image_token": manifest.llm.placeholder,
        "image_token_index": image_token_id,
        "slide_token_width": manifest.slide_encoder.embed_dim,
        "mm_hidden_size": config.mm_hidden_size,
        "mm_projector_type": config.mm_projector_type,
        "max_slide_tokens": manifest.slide_encoder.slide_tokens,
        "tie_word_embeddings": config.tie_word_embeddings,
        "text_config": _llama_config(config, manifest),
    }


def _layer_shapes(config: LlavaConfig, prefix: str) -> dict[str, Shape]:
    hidden, inner, key_value = config.hidden_size, config.intermediate_size, config.key_value_width
    return {
        f"{prefix}.self_attn.q_proj.weight": (hidden, hidden),
        f"{prefix}.self_attn.k_proj.weight": (key_value, hidden),
        f"{prefix}.self_attn.v_proj.weight": (key_value, hidden),
        f"{prefix}.self_attn.o_proj.weight": (hidden, hidden),
        f"{prefix}.mlp.gate_proj.weight": (inner, hidden),
        f"{prefix}.mlp.up_proj.weight": (inner, hidden),
        f"{prefix}.mlp.down_proj.weight": (hidden, inner),
        f"{prefix}.input_layernorm.weight": (hidden,),
        f"{prefix}.post_attention_layernorm.weight": (hidden,),
    }


def _llama_config(config: LlavaConfig, manifest: Manifest) -> dict[str, Any]:
    copied = (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("max_position_embeddings", "rms_norm_eps", "rope_theta", "hidden_act", "tie_word_embeddings"),
        *("bos_token_id", "eos_token_id", "pad_token_id"),
    )
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": manifest.llm.dtype,
        "num_key_value_heads": config.num_key_value_heads or config.num_attention_heads,
        **{key: getattr(config, key) for key in copied},
    }
