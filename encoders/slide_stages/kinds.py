"""The kinds of slide stage that there are: from a manifest's words to what computes.

A new kind is a line here, and one in `empty_parts`.
"""

from typing import Any, assert_never

import torch

from encoders.slide_encoder.encode import SlideAttention
from encoders.slide_stages.hierarchical import HierarchicalStage
from encoders.slide_stages.longnet_all import LongnetAllStage
from encoders.slide_stages.longnet_pool import LongnetPoolStage
from encoders.slide_stages.slide_stage import SlideStage
from encoders.slide_stages.without_weights import MeanStage, UntouchedStage
from model_store.contracts.hierarchical import Hierarchical
from model_store.contracts.slide_stage import LongnetAll, LongnetPool, Mean, Untouched
from model_store.installed import InstalledModel


def load_slide_stage(
    model: InstalledModel, device: torch.device, attention: SlideAttention = "torch"
) -> SlideStage[Any]:
    """The model's slide stage, not warm yet; raises ModelError when its weights do not fit."""
    spec, inputs = model.manifest.slide_stage, model.manifest.inputs
    match spec:
        case LongnetPool():
            return LongnetPoolStage(spec, inputs, model.file(spec.weights), device, attention)
        case LongnetAll():
            return LongnetAllStage(spec, inputs, model.file(spec.weights), device, attention)
        case Mean():
            return MeanStage(spec, inputs)
        case Untouched():
            return UntouchedStage(spec, inputs)
        case Hierarchical():
            return HierarchicalStage(spec, model.file, device)
        case _:
            assert_never(spec)
