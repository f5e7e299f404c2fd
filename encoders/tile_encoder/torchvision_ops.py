"""The only door to timm: declares, where they are missing, the operators that importing torchvision asks for.

timm imports torchvision, and the torchvision of the Python package index is a CUDA build. Beside a CPU torch its
import fails with "operator torchvision::nms does not exist". We call neither operator, so a declaration is enough.
A CUDA torch, or a CPU build of torchvision ("+cpu" in its version), brings them itself.
"""

from importlib import metadata

import torch


def _declare_operators() -> torch.library.Library | None:
    if torch.version.cuda is not None or metadata.version("torchvision").endswith("+cpu"):
        return None
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    return library


# Kept for the life of the process: the declarations vanish with the object.
_OPERATORS = _declare_operators()

import timm as timm  # noqa: E402 - only after the declarations
from timm.layers.attention import Attention as Attention  # noqa: E402
from timm.layers.layer_scale import LayerScale as LayerScale  # noqa: E402
from timm.layers.mlp import GluMlp as GluMlp  # noqa: E402
from timm.layers.mlp import Mlp as Mlp  # noqa: E402
from timm.layers.mlp import SwiGLU as SwiGLU  # noqa: E402
from timm.layers.norm import LayerNorm as LayerNorm  # noqa: E402
from timm.layers.norm import RmsNorm as RmsNorm  # noqa: E402
from timm.layers.patch_dropout import PatchDropout as PatchDropout  # noqa: E402
from timm.layers.patch_embed import PatchEmbed as PatchEmbed  # noqa: E402
from timm.models.vision_transformer import Block as Block  # noqa: E402
from timm.models.vision_transformer import VisionTransformer as VisionTransformer  # noqa: E402
