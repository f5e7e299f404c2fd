"""From a request's arrays to slide tokens in the prompt: everything that can be wrong with a slide is refused here.

Runs in vLLM's API process. What passes reaches the engine unchecked, where a wrong shape would end every request.
Shapes: N slide tokens (varies), W = `slide_token_width` columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import BatchFeature

from eyepiece_vllm.config import SlideConfig
from eyepiece_vllm.vllm_internals import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    MultiModalDataItems,
    MultiModalDataParser,
    MultiModalFieldConfig,
    MultiModalKwargsItems,
    ProcessorBatchItems,
    ProcessorInputs,
    PromptReplacement,
    TimingContext,
    VLLMValidationError,
)

# vLLM's chat endpoint knows these two names: the modality of an `image_embeds` part and the field it is sent in.
MODALITY = "image"
FIELD = "image_embeds"
_ACCEPTED_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class SlideRules:
    """What an array must be: [1..max_tokens, width], and finite in the dtype the model runs in."""

    width: int
    max_tokens: int
    model_dtype: torch.dtype

    def checked(self, slide: object) -> torch.Tensor:
        """The slide in the model's dtype, [N, W]; raises VLLMValidationError that says what is wrong."""
        if not isinstance(slide, torch.Tensor):
            raise VLLMValidationError("A slide must be sent as an image_embeds part that holds an .npy array.")
        if slide.dtype not in _ACCEPTED_DTYPES:
            raise VLLMValidationError(f"Slide tokens must be float16, bfloat16 or float32, not {slide.dtype}.")
        self._check_shape(slide)
        cast = slide.to(self.model_dtype)
        # After the cast: a large float32 becomes infinite in float16.
        if not torch.isfinite(cast).all():
            raise VLLMValidationError(f"Slide tokens hold NaN or values beyond the range of {self.model_dtype}.")
        return cast

    def _check_shape(self, slide: torch.Tensor) -> None:
        if slide.ndim != 2:
            raise VLLMValidationError(f"Slide tokens must have rank 2 (tokens, width), not {slide.ndim}.")
        tokens, width = slide.shape
        if width != self.width:
            raise VLLMValidationError(f"Slide tokens must be {self.width} wide, not {width}: wrong slide encoder?")
        if not 1 <= tokens <= self.max_tokens:
            raise VLLMValidationError(f"A slide must have 1 to {self.max_tokens} slide tokens, not {tokens}.")


class SlideItems(ProcessorBatchItems):
    """Checked slides of one request; None stands for a slide that vLLM has cached under the request's uuid."""

    def __init__(self, slides: Sequence[torch.Tensor | None]) -> None:
        super().__init__(slides, MODALITY)


class SlideDataParser(MultiModalDataParser):
    """Takes the place of vLLM's image parser; anything but slide tokens is refused."""

    def __init__(self, rules: SlideRules) -> None:
        super().__init__()
        self.rules = rules

    def _parse_image_data(self, data: object) -> SlideItems | None:
        if data is None:
            return None
        # A stacked tensor iterates over its slides, so a single array of rank 2 is refused as slides of rank 1.
        slides = list(data) if isinstance(data, (Sequence, torch.Tensor)) else [data]
        return SlideItems([None if slide is None else self.rules.checked(slide) for slide in slides])


class SlideProcessingInfo(BaseProcessingInfo):
    """Limits: one slide per prompt, `max_slide_tokens` per slide."""

    def get_hf_config(self) -> SlideConfig:
        """The served model's config."""
        return self.ctx.get_hf_config(SlideConfig)

    def get_hf_processor(self, **kwargs: object) -> Any:
        """There is none: slide tokens arrive ready-made."""
        raise NotImplementedError("This is a bug: slide tokens need no Hugging Face processor.")

    def get_supported_mm_processor_kwargs(self) -> dict[str, set[str]]:
        """None: a request cannot change how its slide is processed."""
        return {}

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """One slide per prompt."""
        return {MODALITY: 1}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        """Known from the config, so vLLM need not measure it."""
        return {MODALITY: self.get_hf_config().max_slide_tokens}

    def get_data_parser(self) -> SlideDataParser:
        """Ours: the stock one wants the language model's own width."""
        config = self.get_hf_config()
        return SlideDataParser(
            SlideRules(config.slide_token_width, config.max_slide_tokens, self.ctx.model_config.dtype)
        )


class SlideDummyInputs(BaseDummyInputsBuilder[SlideProcessingInfo]):
    """The largest allowed input, for vLLM's memory profiling and warm-up."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        """One placeholder per slide."""
        return self.info.get_hf_config().image_token * mm_counts.get(MODALITY, 0)

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int], mm_options: object) -> dict[str, Any]:
        """Zeros of the largest allowed shape."""
        config = self.info.get_hf_config()
        slide = torch.zeros(config.max_slide_tokens, config.slide_token_width)
        return {MODALITY: [slide] * mm_counts.get(MODALITY, 0)}


class SlideProcessor(BaseMultiModalProcessor[SlideProcessingInfo]):
    """Replaces each placeholder id of the prompt by as many as its slide has tokens."""

    def apply(self, inputs: ProcessorInputs, timing_ctx: TimingContext) -> Any:
        """Refuses a prompt whose placeholders and slides differ in number.

        A placeholder id without a slide lies outside the vocabulary and would end the engine, or, clamped, be
        answered as if a slide had been seen.
        """
        placeholders = inputs.prompt.count(self._placeholder_id)
        slides = inputs.mm_data_items.get_count(MODALITY, strict=False)
        if placeholders != slides:
            raise VLLMValidationError(f"The prompt holds {placeholders} slide placeholders for {slides} slides.")
        return super().apply(inputs, timing_ctx)

    @property
    def _placeholder_id(self) -> int:
        return self.info.get_hf_config().image_token_index

    @property
    def _row_id(self) -> int:
        """Stands for each row of a slide in the prompt. Rows are put in by their places, so any id will do, but one
        beyond the vocabulary has no log-probability: vLLM would reach past its tables (sampling_limits)."""
        is_known = self._placeholder_id < self.info.get_hf_config().text_config.vocab_size
        return self._placeholder_id if is_known else 0

    def _call_hf_processor(self, hf_data: Mapping[str, Any], hf_kwargs: Mapping[str, object]) -> BatchFeature:
        slides = hf_data[f"{MODALITY}s"]
        if any(slide is None for slide in slides):  # only where vLLM's multimodal cache is switched off
            raise VLLMValidationError("The slide is not cached here; send it with its slide tokens.")
        return BatchFeature({FIELD: slides})

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        return {FIELD: MultiModalFieldConfig.batched(MODALITY)}

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, object],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptReplacement]:
        def slide_tokens(index: int) -> list[int]:
            slide = mm_items.get_items(MODALITY, SlideItems).get(index)
            return [self._row_id] * len(slide)

        return [PromptReplacement(modality=MODALITY, target=[self._placeholder_id], replacement=slide_tokens)]
