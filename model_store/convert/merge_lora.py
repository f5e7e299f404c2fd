"""A LoRA adapter folded into the weights it was trained for: W + scale · B · A, in fp32."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from model_store.convert.tensor_names import NameMap
from model_store.errors import ModelError
from model_store.files.checkpoint_files import read_json, read_shard

CONFIG_FILE: Final = "adapter_config.json"
_WEIGHT_FILES: Final = ("adapter_model.safetensors", "adapter_model.bin")
# PEFT drops the adapter's name ("default") when it saves; the reference's own saving code may keep it.
_FACTOR = re.compile(r"(.+)\.lora_([AB])(?:\.default)?\.weight")


class LoraConfig(BaseModel):
    """What decides the merged weights; variants of LoRA that compute something else are errors."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    peft_type: Literal["LORA"]
    r: int = Field(gt=0)
    lora_alpha: float
    use_rslora: bool = False
    use_dora: Literal[False] = False
    fan_in_fan_out: Literal[False] = False
    bias: Literal["none"] = "none"
    rank_pattern: dict[str, int] = Field(default_factory=dict, max_length=0)
    alpha_pattern: dict[str, float] = Field(default_factory=dict, max_length=0)

    @property
    def scale(self) -> float:
        """What B · A is multiplied by."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)


@dataclass(frozen=True)
class LoraFactors:
    """The pair of one weight [out, in]: a [r, in], b [out, r]."""

    a: Tensor
    b: Tensor


@dataclass(frozen=True)
class LoraAdapter:
    """Factors by the served name of the weight that they change."""

    config: LoraConfig
    factors: Mapping[str, LoraFactors]

    def merge(self, name: str, weight: Tensor) -> Tensor:
        """The weight with its factors folded in, fp32; as it is when the adapter does not change it."""
        pair = self.factors.get(name)
        if pair is None:
            return weight
        if (pair.b.shape[0], pair.a.shape[1]) != tuple(weight.shape):
            raise ModelError(
                f"The adapter does not fit its base at {name!r}: it changes [{pair.b.shape[0]}, {pair.a.shape[1]}], "
                f"the weight is {list(weight.shape)}; use the base that the adapter was trained on."
            )
        return torch.addmm(weight.float(), pair.b.float(), pair.a.float(), alpha=self.config.scale)


def adapter_weights(folder: Path) -> Path:
    """The adapter's weight file; raises ModelError when there is none."""
    for name in _WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise ModelError(f"There is an {CONFIG_FILE} but no {' or '.join(_WEIGHT_FILES)}; get the file.")


def read_adapter(folder: Path, names: NameMap) -> LoraAdapter:
    """The adapter in a PEFT folder; raises ModelError naming a key or tensor that cannot be merged."""
    config = _read_config(folder / CONFIG_FILE)
    sides: dict[str, dict[str, Tensor]] = {"A": {}, "B": {}}
    for published, tensor in read_shard(adapter_weights(folder)).items():
        match = _FACTOR.fullmatch(published)
        if match is None:
            raise ModelError(f"The adapter's tensor {published!r} is no LoRA factor; it cannot be merged.")
        served = names.served_name(f"{match[1]}.weight")
        if served is not None:
            sides[match[2]][served] = tensor
    return LoraAdapter(config, _pairs(sides["A"], sides["B"], config.r))


def _read_config(path: Path) -> LoraConfig:
    try:
        return LoraConfig.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ModelError(f"{path.name} cannot be merged because of {first['loc'][0]!r}: {first['msg']}.") from error


def _pairs(a: dict[str, Tensor], b: dict[str, Tensor], rank: int) -> dict[str, LoraFactors]:
    for name in sorted(a.keys() ^ b.keys()):
        raise ModelError(f"The adapter has only one of two LoRA factors for {name!r}; get the file again.")
    for name, factor in a.items():
        if factor.dim() != 2 or b[name].dim() != 2 or factor.shape[0] != rank or b[name].shape[1] != rank:
            raise ModelError(f"The adapter's factors for {name!r} are not of rank {rank}, as its config says.")
    return {name: LoraFactors(factor, b[name]) for name, factor in a.items()}
