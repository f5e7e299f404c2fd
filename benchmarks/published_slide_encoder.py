"""The published slide encoder's own code on a CPU, to compare with: imported from a checkout that the user names.

The reference is github.com/prov-gigapath/prov-gigapath at commit 09d8e87; it needs einops. It runs unmodified; what
a CPU has not is substituted from outside: FlashAttention by PyTorch's own kernel of the same formula, fairscale,
timm and huggingface_hub (used for training, registration and download only) by empty modules, and `np` in the module
that evaluates the segment lengths, which numpy 2 prints as np.int64(...).
"""

import contextlib
import importlib
import io
import sys
import types
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

COMMIT = "09d8e87"

_SUBSTITUTED: dict[str, list[str]] = {
    "fairscale": [],
    "fairscale.nn": ["checkpoint_wrapper", "wrap"],
    "timm": [],
    "timm.models": [],
    "timm.models.layers": ["drop_path"],
    "timm.models.registry": ["register_model"],
    "huggingface_hub": [],
}


def import_published(checkout: Path) -> types.ModuleType:
    """The reference's module `gigapath.slide_encoder`; for this process, timm and its like are empty from now on."""
    # Its own package torchscale is importable from then on: gigapath/__init__.py puts it on the path.
    slide_encoder = import_on_cpu(checkout, "gigapath.slide_encoder")
    vars(importlib.import_module("torchscale.architecture.config"))["np"] = np
    return slide_encoder


def import_on_cpu(folder: Path, module: str) -> types.ModuleType:
    """A module of published code below `folder` that uses torchscale, with what a CPU has not substituted."""
    for name, functions in _SUBSTITUTED.items():
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__dict__.update(dict.fromkeys(functions, lambda unchanged, *_: unchanged))
    sys.path.insert(0, str(folder))
    imported = importlib.import_module(module)
    vars(importlib.import_module("torchscale.component.multihead_attention"))["flash_attn_func"] = _cpu_attention
    return imported


def build_published(
    slide_encoder: types.ModuleType,
    *,
    in_chans: int,
    embed_dim: int,
    depth: int,
    num_heads: int,
    slide_ngrids: int,
    max_wsi_size: int = 262144,
) -> Any:
    """The reference model, in evaluation mode; its encoder's sizes are looked up by name in a table of them."""
    sizes = {
        "encoder_layers": depth,
        "encoder_embed_dim": embed_dim,
        "encoder_ffn_embed_dim": 4 * embed_dim,
        "encoder_attention_heads": num_heads,
        "flash_attention": True,
    }
    table = importlib.import_module("torchscale.model.LongNetConfig")
    setattr(table, f"LongNet_{depth}_layers_{embed_dim}_dim", sizes)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its own options
        model = slide_encoder.LongNetViT(
            in_chans=in_chans,
            embed_dim=embed_dim,
            depth=depth,
            slide_ngrids=slide_ngrids,
            max_wsi_size=max_wsi_size,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
    return model.eval()


def _cpu_attention(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    """[b, l, h, d] each → output [b, l, h, d], log-sum-exp [b, h, l]; no mask, dropout or causality."""
    heads_first = (x.transpose(1, 2) for x in (query, key, value))
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*heads_first)
    return out.transpose(1, 2), lse
