"""The `config.json` of a served model: a language model plus what the projector and the slide input need."""

from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import LlamaConfig, PretrainedConfig, Qwen2Config


@strict
class SlideConfig(PretrainedConfig):
    """Widths are columns of a slide token: stored (`slide_token_width`) and read by the projector (`mm_hidden_size`).

    `image_token_index` may lie outside the language model's vocabulary, as Vicuna's does. `text_config` must not hold
    `projection_dim` or `projection_size`: vLLM would take either for the width of its input embeddings.
    """

    sub_configs: ClassVar[dict[str, type[PretrainedConfig]]] = {"text_config": LlamaConfig}

    text_config: dict[str, Any] | PretrainedConfig | None = None
    slide_token_width: int = 768
    mm_hidden_size: int = 1024
    mm_projector_type: Literal["mlp2x_gelu", "identity"] = "mlp2x_gelu"
    max_slide_tokens: int = 576
    image_token: str = "<image>"  # noqa: S105 - a token of text
    image_token_index: int = 32000
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if not isinstance(self.text_config, PretrainedConfig):
            self.text_config = self.sub_configs["text_config"](**(self.text_config or {}))
        self.tie_word_embeddings = self.text_config.tie_word_embeddings
        if not 0 < self.slide_token_width <= self.mm_hidden_size:
            raise ValueError("slide_token_width must be positive and at most mm_hidden_size.")
        widths = {self.slide_token_width, self.mm_hidden_size, self.text_config.hidden_size}
        if self.mm_projector_type == "identity" and len(widths) > 1:
            raise ValueError("Without a projector, slide tokens must be as wide as the language model.")
        if self.max_slide_tokens < 1:
            raise ValueError("max_slide_tokens must be at least 1.")
        super().__post_init__(**kwargs)


@strict
class WsiLlavaConfig(SlideConfig):
    """Around a Llama."""

    model_type = "wsi_llava"


@strict
class SlideQwen2Config(SlideConfig):
    """Around a Qwen2."""

    model_type = "slide_qwen2"
    sub_configs: ClassVar[dict[str, type[PretrainedConfig]]] = {"text_config": Qwen2Config}
