"""Every name that vLLM 0.32 does not promise to keep, and why we need it. No other module imports from vLLM's inside.

When the vLLM version moves, this list is what to check first; the second is the methods that `slide_input` and
`model` override, each named in its base class here.
"""

# What vLLM hands to every model it builds.
from vllm.config import VllmConfig

# Says "the client's fault" whatever the endpoint: HTTP 400 with our text. ValueError does so only for now (vLLM
# marks that branch as to be removed).
from vllm.exceptions import VLLMValidationError

# Parts of a multimodal model: what the engine asks of it (embed_multimodal, embed_input_ids) and the capabilities
# that it reads off the bases. `SupportsMultiModal._mark_language_model` tells it which child is the decoder.
from vllm.model_executor.models.interfaces import MultiModalEmbeddings, SupportsLoRA, SupportsMultiModal, SupportsPP

# Strict loading by name, and building vLLM's own Llama inside our model instead of copying it.
from vllm.model_executor.models.utils import (
    AutoWeightsLoader,
    WeightsMapper,
    init_vllm_registered_model,
    maybe_prefix,
)

# Ties processor, limits and profiling input to the model class.
from vllm.multimodal import MULTIMODAL_REGISTRY

# One tensor per slide ("batched"); a list because slides differ in their number of tokens.
from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems

# The stock embedding items bypass the multimodal cache; `ProcessorBatchItems` goes through it.
from vllm.multimodal.parse import MultiModalDataItems, MultiModalDataParser, ProcessorBatchItems

# The processor's skeleton: parse, hash, cache, then replace one placeholder id by N of them.
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    ProcessorInputs,
    PromptReplacement,
    TimingContext,
)

# A request's `vllm_xargs`, as `extra_args`.
from vllm.sampling_params import SamplingParams

# What pipeline stages pass on.
from vllm.sequence import IntermediateTensors

# The first model runner's logits processors (CPU): batch rows that requests join, leave and exchange.
from vllm.v1.sample.logits_processor import BatchUpdate

# Their base, renamed: the second runner's has the same name.
from vllm.v1.sample.logits_processor import LogitsProcessor as HostLogitsProcessor

# What vLLM's own processors keep their rows with.
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

# The second model runner's (GPU): request slots, token ids that stay on the device, lengths known to the host.
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsContext, LogitsProcRequestState

# Their base, renamed for the same reason.
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor as DeviceLogitsProcessor

__all__ = [
    "MULTIMODAL_REGISTRY",
    "AutoWeightsLoader",
    "BaseDummyInputsBuilder",
    "BaseMultiModalProcessor",
    "BaseProcessingInfo",
    "BatchUpdate",
    "DeviceLogitsProcessor",
    "HostLogitsProcessor",
    "IntermediateTensors",
    "LogitsContext",
    "LogitsProcRequestState",
    "MultiModalDataItems",
    "MultiModalDataParser",
    "MultiModalEmbeddings",
    "MultiModalFieldConfig",
    "MultiModalKwargsItems",
    "ProcessorBatchItems",
    "ProcessorInputs",
    "PromptReplacement",
    "SamplingParams",
    "SupportsLoRA",
    "SupportsMultiModal",
    "SupportsPP",
    "TimingContext",
    "VLLMValidationError",
    "VllmConfig",
    "WeightsMapper",
    "init_vllm_registered_model",
    "maybe_prefix",
    "process_dict_updates",
]
