"""LoRA (arXiv 2106.09685), as LLaVA trains with it: a pair of thin matrices beside each linear layer of the decoder.

The weights beside which they stand are frozen, and so are embedding, norms and the output layer; the projector is
trained whole.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from training.language_model.hugging_face_peft import LoraConfig, TaskType, inject_adapter_in_model
from training.language_model.slide_language_model import SlideLanguageModel

_ADAPTER: Final = "default"
# Every linear layer of a Llama but lm_head, which LLaVA's find_all_linear_names leaves out.
_LINEAR_LAYERS: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class LowRank:
    """W + alpha / rank · B · A; `dropout` acts on what A gets."""

    rank: int
    alpha: int
    dropout: float = 0.05


def add_low_rank(model: SlideLanguageModel, low_rank: LowRank) -> None:
    """Adds the pairs, which change nothing yet (B is 0), and leaves them and the projector alone to be trained.

    Both are fp32 whatever the dtype of the frozen weights: steps of a small learning rate vanish in bf16.
    """
    inject_adapter_in_model(_config(low_rank), model.llama)
    for name, parameter in model.named_parameters():
        is_trained = ".lora_" in name or name.startswith("mm_projector.")
        parameter.requires_grad_(is_trained)
        if is_trained:
            parameter.data = parameter.data.float()


def low_rank_of(model: SlideLanguageModel) -> LowRank | None:
    """What was added to the model, if anything was."""
    configs: Mapping[str, LoraConfig] = getattr(model.llama, "peft_config", {})
    config = configs.get(_ADAPTER)
    return None if config is None else LowRank(config.r, config.lora_alpha, config.lora_dropout)


def adapter_config(low_rank: LowRank, base: str) -> dict[str, object]:
    """PEFT's `adapter_config.json` for an adapter on top of the model that is called `base`."""
    config = _config(low_rank)
    config.base_model_name_or_path = base
    config.inference_mode = True
    described: dict[str, object] = config.to_dict()  # type: ignore[no-untyped-call]
    return {key: sorted(value) if isinstance(value, set) else value for key, value in described.items()}


def low_rank_factors(model: SlideLanguageModel) -> Iterator[tuple[str, Tensor]]:
    """A and B of each layer by `<module of the Llama>.lora_A.weight` and `….lora_B.weight`."""
    for name, parameter in model.llama.named_parameters():
        if ".lora_" in name:
            yield name.replace(f".{_ADAPTER}.", "."), parameter.detach()


def merged_weights(model: SlideLanguageModel) -> Iterator[tuple[str, Tensor]]:
    """The Llama's weights under its own names, pairs folded in, in fp32, one at a time: a 7B model is 27 GB of them."""
    parameters = {name: parameter.detach() for name, parameter in model.llama.named_parameters()}
    low_rank = low_rank_of(model)
    for name, parameter in parameters.items():
        if ".lora_" in name:
            continue
        module = name.removesuffix(".base_layer.weight")
        pair = [parameters.get(f"{module}.lora_{side}.{_ADAPTER}.weight") for side in "BA"]
        yield name.replace(".base_layer.", "."), _merged(parameter, pair, low_rank)


def _merged(weight: Tensor, pair: Sequence[Tensor | None], low_rank: LowRank | None) -> Tensor:
    b, a = pair
    if a is None or b is None or low_rank is None:
        return weight.float()
    # As model_store.convert.merge_lora and the reference do it: in fp32, whatever the weight is.
    return torch.addmm(weight.float(), b.float(), a.float(), alpha=low_rank.alpha / low_rank.rank)


def _config(low_rank: LowRank) -> LoraConfig:
    return LoraConfig(
        r=low_rank.rank,
        lora_alpha=low_rank.alpha,
        lora_dropout=low_rank.dropout,
        target_modules=list(_LINEAR_LAYERS),
        bias="none",
        task_type=TaskType.CAUSAL_LM,
    )
