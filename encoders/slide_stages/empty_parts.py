"""The networks of each kind of slide stage without numbers: names and shapes, for converters, checks and trainers.

Apart from what computes (`kinds`), which finds outlines and cells by OpenCV and SciPy: who trains needs neither.
"""

from typing import assert_never

from torch import nn

from encoders.hierarchical.networks import empty_networks
from encoders.slide_encoder.encode import empty_slide_encoder
from encoders.slide_stages.longnet_all import empty_longnet
from model_store.contracts.hierarchical import Hierarchical
from model_store.contracts.slide_stage import LongnetAll, LongnetPool, Mean, SlideStageSpec, Untouched


def empty_parts(spec: SlideStageSpec) -> dict[str, nn.Module]:
    """The networks of a kind on the meta device, by their file of weights: names and shapes, no numbers."""
    match spec:
        case LongnetPool():
            return {spec.weights: empty_slide_encoder(spec)}
        case LongnetAll():
            return {spec.weights: empty_longnet(spec)}
        case Mean() | Untouched():
            return {}
        case Hierarchical():
            files = spec.weights_files()
            return {files[name]: network for name, network in empty_networks(spec).by_name().items()}
        case _:
            assert_never(spec)
