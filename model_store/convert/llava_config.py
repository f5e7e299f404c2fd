"""The `config.json` of a LLaVA checkpoint: what is needed of it, strictly, and the one that is served instead."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from model_store.contracts.fields import Positive, PositiveFloat
from model_store.convert.float8_weights import SCALE_SUFFIX
from model_store.convert.packed_weights import PackedForm
from model_store.errors import ModelError
from model_store.files.checkpoint_files import read_json
from model_store.files.write_safetensors import Shape
from model_store.manifest import Manifest

# What may be quantised: the matrices of the layers. Embeddings, output, norms and projector stay in 16 bits.
_MATRIX: Final = re.compile(r"(model\.layers\.\d+\.(?:self_attn|mlp)\.[a-z]+_proj)\.weight")

_Config = TypeVar("_Config", bound="LlamaNumbers")
Family = Literal["llama", "qwen2"]
# What vLLM calls our model around a language model of each family, what that config is called, and the model inside.
_ARCHITECTURES: Final[dict[Family, tuple[str, str, str]]] = {
    "llama": ("WsiLlavaForConditionalGeneration", "wsi_llava", "LlamaForCausalLM"),
    "qwen2": ("SlideQwen2ForConditionalGeneration", "slide_qwen2", "Qwen2ForCausalLM"),
}


class LlamaNumbers(BaseModel):
    """What a Llama's config says of tensors and computation; a value we cannot serve is an error."""

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
    use_sliding_window: Literal[False] = False  # of a Qwen2
    tie_word_embeddings: Literal[False] = False
    bos_token_id: int = 1
    eos_token_id: int = 2
    pad_token_id: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_before_transformers_5(cls, said: Any) -> Any:
        """`rope_parameters` is what newer releases write in place of two keys."""
        rope = said.get("rope_parameters") if isinstance(said, Mapping) else None
        if not isinstance(rope, Mapping):
            return said
        scaling = None if rope.get("rope_type", "default") == "default" else rope
        return {"rope_scaling": scaling, **({"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {}), **said}

    @property
    def key_value_width(self) -> int:
        """Rows of k_proj and v_proj."""
        heads = self.num_key_value_heads or self.num_attention_heads
        return self.hidden_size // self.num_attention_heads * heads


class ServedConfig(LlamaNumbers):
    """A language model of one of the plugin's families, and the projector before it, in the words of its config.json.

    A Qwen2 is a Llama with biases in three of its projections.
    """

    family: Family = "llama"
    mm_hidden_size: Positive
    mm_projector_type: Literal["mlp2x_gelu", "identity"]


class LlavaConfig(ServedConfig):
    """What the reference's config says of the projector beside that.

    Other keys (training, CLIP, anyres images) do not change what is served.
    """

    family: Literal["llama"] = "llama"
    mm_projector_type: Literal["mlp2x_gelu"]
    mm_use_im_start_end: Literal[False] = False
    mm_use_im_patch_token: Literal[False] = False
    mm_patch_merge_type: Literal["flat"] = "flat"


def read_served_config(path: Path, manifest: Manifest) -> ServedConfig:
    """A Hugging Face language model's config beside the manifest's projector; raises ModelError naming the first key
    that is wrong or cannot be served."""
    said = read_json(path)
    projector = {"mm_hidden_size": manifest.projector_width, "mm_projector_type": manifest.projector.plugin_type}
    try:
        return ServedConfig.model_validate({**said, **projector, "family": said.get("model_type")})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = "model_type" if first["loc"][0] == "family" else first["loc"][0]
        raise ModelError(f"The language model's config.json is wrong at {field!r}: {first['msg']}.") from error


def read_llava_config(path: Path, projector_width: int) -> LlavaConfig:
    """The checkpoint's config; raises ModelError naming the first key that is wrong or cannot be served."""
    config = _read(LlavaConfig, path, "checkpoint")
    if config.mm_hidden_size != projector_width:
        raise ModelError(
            f"The checkpoint's config.json says mm_hidden_size {config.mm_hidden_size}, the manifest says a "
            f"projector width {projector_width}: use the manifest of this checkpoint."
        )
    return config


def served_config_of(said: Mapping[str, Any]) -> ServedConfig:
    """What an installed model's config.json says; raises ModelError naming the first key that cannot be served."""
    text = said.get("text_config", {})
    try:
        return ServedConfig.model_validate({**said, **text, "family": text.get("model_type")})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ModelError(f"The model's llm/config.json is wrong at {first['loc'][0]!r}: {first['msg']}.") from error


def served_shapes(config: ServedConfig) -> dict[str, Shape]:
    """Name and shape of every served tensor: the language model's and the projector's, under LLaVA's names."""
    hidden = config.hidden_size
    projector: dict[str, Shape] = {
        "model.mm_projector.0.weight": (hidden, config.mm_hidden_size),
        "model.mm_projector.0.bias": (hidden,),
        "model.mm_projector.2.weight": (hidden, hidden),
        "model.mm_projector.2.bias": (hidden,),
    }
    layers = (_layer_shapes(config, f"model.layers.{number}") for number in range(config.num_hidden_layers))
    return {
        "model.embed_tokens.weight": (config.vocab_size, hidden),
        **{name: shape for layer in layers for name, shape in layer.items()},
        "model.norm.weight": (hidden,),
        "lm_head.weight": (config.vocab_size, hidden),
        **(projector if config.mm_projector_type == "mlp2x_gelu" else {}),
    }


def matrices_of(shapes: Mapping[str, Shape]) -> frozenset[str]:
    """The tensors among them that may be quantised."""
    return frozenset(name for name in shapes if _MATRIX.fullmatch(name))


def float8_shapes(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The same model with its matrices in 8 bits and a scale for each of their rows."""
    scales = {name + SCALE_SUFFIX: (shapes[name][0], 1) for name in matrices_of(shapes)}
    return {**shapes, **scales}


def packed_shapes(shapes: Mapping[str, Shape], form: PackedForm) -> dict[str, Shape]:
    """The same model with its matrices in 4 bits; raises ModelError when the form does not fit them."""
    stored: dict[str, Shape] = {}
    for name, shape in shapes.items():
        matrix = _MATRIX.fullmatch(name)
        stored |= form.stored(matrix[1], shape) if matrix else {name: shape}
    return stored


def refuse_another_llama(folder: Path, config: LlavaConfig) -> None:
    """Raises ModelError when the language model in `folder` is not of the checkpoint's architecture and numbers."""
    found = _numbers(_read(LlamaNumbers, folder / "config.json", "quantised language model"))
    for key, value in _numbers(config).items():
        if found[key] != value:
            raise ModelError(
                f"The quantised language model says {key} {found[key]}, the checkpoint {value}; it is another model's."
            )


def served_config(
    config: ServedConfig, manifest: Manifest, image_token_id: int, quantization: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The `config.json` that the vLLM plugin reads; `quantization` is vLLM's `quantization_config`."""
    architecture, model_type, _ = _ARCHITECTURES[config.family]
    return {
        **({} if quantization is None else {"quantization_config": quantization}),
        "architectures": [architecture],
        "model_type": model_type,
        "dtype": manifest.llm.dtype,
        "image_token": manifest.prompt.placeholder,
        "image_token_index": image_token_id,
        "slide_token_width": manifest.row_width,
        "mm_hidden_size": config.mm_hidden_size,
        "mm_projector_type": config.mm_projector_type,
        "max_slide_tokens": manifest.most_rows,
        "tie_word_embeddings": config.tie_word_embeddings,
        "text_config": _text_config(config, manifest),
    }


def _read(kind: type[_Config], path: Path, owner: str) -> _Config:
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ModelError(f"The {owner}'s config.json is wrong at {first['loc'][0]!r}: {first['msg']}.") from error


def _layer_shapes(config: ServedConfig, prefix: str) -> dict[str, Shape]:
    hidden, inner, key_value = config.hidden_size, config.intermediate_size, config.key_value_width
    biases: dict[str, Shape] = {
        f"{prefix}.self_attn.q_proj.bias": (hidden,),
        f"{prefix}.self_attn.k_proj.bias": (key_value,),
        f"{prefix}.self_attn.v_proj.bias": (key_value,),
    }
    return {
        **(biases if config.family == "qwen2" else {}),
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


def _text_config(config: ServedConfig, manifest: Manifest) -> dict[str, Any]:
    copied = ("max_position_embeddings", "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")
    return {
        "architectures": [_ARCHITECTURES[config.family][2]],
        "model_type": config.family,
        "dtype": manifest.llm.dtype,
        **_numbers(config),
        **{key: getattr(config, key) for key in copied},
    }


def _numbers(config: LlamaNumbers) -> dict[str, Any]:
    """What decides shapes and results of a Llama."""
    copied = (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("rms_norm_eps", "rope_theta", "hidden_act"),
    )
    return {
        "num_key_value_heads": config.num_key_value_heads or config.num_attention_heads,
        **{key: getattr(config, key) for key in copied},
    }
