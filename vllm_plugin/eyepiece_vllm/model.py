"""A slide model as vLLM runs it: a projector in front of one of vLLM's own language models, a class for each family.

It does not know where slide tokens come from; `slide_input` has checked them.
"""

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import nn

from eyepiece_vllm.projector import make_projector
from eyepiece_vllm.slide_input import FIELD, MODALITY, SlideDummyInputs, SlideProcessingInfo, SlideProcessor
from eyepiece_vllm.vllm_internals import (
    MULTIMODAL_REGISTRY,
    AutoWeightsLoader,
    IntermediateTensors,
    MultiModalEmbeddings,
    SupportsLoRA,
    SupportsMultiModal,
    SupportsPP,
    VllmConfig,
    WeightsMapper,
    init_vllm_registered_model,
    maybe_prefix,
)


class SlideLanguageModel(nn.Module, SupportsMultiModal, SupportsLoRA, SupportsPP):
    """What all families share; a family names vLLM's class and the text that stands for a slide in a prompt.

    Loads a checkpoint with LLaVA's tensor names; unknown, missing or misshapen tensors stop the start.

    A quantised one names in those terms what is quantised and what is not: vLLM renames both by the two maps below.
    """

    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_prefix={
            "model.mm_projector.": "projector.",
            "model.": "language_model.model.",
            "lm_head.": "language_model.lm_head.",
        }
    )
    # vLLM's Llama and Qwen2 fuse these; the same map as theirs, so that LoRA adapters find them.
    packed_modules_mapping = {  # noqa: RUF012 - vLLM reads a plain class attribute
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }

    placeholder: ClassVar[str]
    language_model_architecture: ClassVar[str]

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str:
        """The text that stands for a slide in a prompt."""
        if modality.startswith(MODALITY):
            return cls.placeholder
        raise ValueError("Only slides are supported.")

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config = vllm_config.model_config.hf_config
        self.vocab_size = config.text_config.vocab_size
        self.configure_mm_token_handling(self.vocab_size, [config.image_token_index])
        # Not marked as a tower: vLLM drops towers when images are limited to 0, and this one is small. Plain layers
        # of torch: whole on every device, and in 16 bits whatever the language model is quantised to.
        self.projector = make_projector(config.mm_projector_type, config.mm_hidden_size, config.text_config.hidden_size)
        with self._mark_language_model(vllm_config):
            self.language_model = init_vllm_registered_model(
                vllm_config=vllm_config,
                hf_config=config.text_config,
                prefix=maybe_prefix(prefix, "language_model"),
                architectures=[self.language_model_architecture],
            )
        self.make_empty_intermediate_tensors = self.language_model.make_empty_intermediate_tensors

    def embed_multimodal(self, **kwargs: object) -> MultiModalEmbeddings:
        """Projects each slide [N, W] → [N, H]; slides of one batch may differ in N."""
        slides: Iterable[torch.Tensor] = kwargs[FIELD]
        return [self.projector(slide) for slide in slides]

    def embed_input_ids(
        self,
        input_ids: torch.Tensor,
        multimodal_embeddings: MultiModalEmbeddings | None = None,
        *,
        is_multimodal: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Ids outside the vocabulary read row 0: a stray placeholder id must not index past the table.

        `SlideProcessor.apply` refuses such prompts; this is for prompts that never pass it (text only, token ids).
        """
        in_vocabulary = input_ids.masked_fill(input_ids >= self.vocab_size, 0)
        return super().embed_input_ids(in_vocabulary, multimodal_embeddings, is_multimodal=is_multimodal)

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: object,
    ) -> torch.Tensor | IntermediateTensors:
        """Hidden states of the language model; later pipeline stages take them from `intermediate_tensors`."""
        if intermediate_tensors is not None:
            inputs_embeds = None
        return self.language_model.model(input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """Logits over the language model's vocabulary; Vicuna's does not hold the placeholder, Qwen's does."""
        return self.language_model.compute_logits(hidden_states)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Names of the parameters that were loaded; vLLM compares them with all there are."""
        return AutoWeightsLoader(self).load_weights(weights, mapper=self.hf_to_vllm_mapper)


@MULTIMODAL_REGISTRY.register_processor(SlideProcessor, info=SlideProcessingInfo, dummy_inputs=SlideDummyInputs)
class WsiLlavaForConditionalGeneration(SlideLanguageModel):
    """Around vLLM's Llama: WSI-LLaVA, the demo model."""

    placeholder = "<image>"
    language_model_architecture = "LlamaForCausalLM"


@MULTIMODAL_REGISTRY.register_processor(SlideProcessor, info=SlideProcessingInfo, dummy_inputs=SlideDummyInputs)
class SlideQwen2ForConditionalGeneration(SlideLanguageModel):
    """Around vLLM's Qwen2, whose vocabulary has a token for pictures."""

    placeholder = "<|image_pad|>"
    language_model_architecture = "Qwen2ForCausalLM"
