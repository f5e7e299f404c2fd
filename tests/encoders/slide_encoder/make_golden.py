"""Makes golden/longnet.safetensors: outputs of the published slide encoder's own code under synthetic weights.

The reference is github.com/prov-gigapath/prov-gigapath at commit 09d8e87, run unmodified on the CPU:

    git clone https://github.com/prov-gigapath/prov-gigapath && git -C prov-gigapath checkout 09d8e87
    pip install einops
    python tests/encoders/slide_encoder/make_golden.py --reference prov-gigapath

benchmarks/published_slide_encoder.py says what is substituted for that. Long slides and the model at full size are
in another file: make_golden_digests.py.

The file holds its own inputs and weights (fp16, so exact), so nothing depends on a random generator's stream:
`weights.<name>`, `tile_features`, `coords`; per case of the JSON in its metadata, some rows of every state and of
`encoder_out`, the mean of each over all tokens, and the four published outputs.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.published_slide_encoder import COMMIT, build_published, import_published

IN_CHANS, EMBED_DIM, DEPTH, SLIDE_NGRIDS = 8, 48, 2, 64
ROWS_KEPT = 24
TOY = {"in_chans": IN_CHANS, "embed_dim": EMBED_DIM, "depth": DEPTH, "slide_ngrids": SLIDE_NGRIDS}

# 16 heads: every length around a segment's border and below the largest ratio. 12 and 3 heads: head groups that
# do not come out even. Smaller slides: more branches of several segments, most of them misaligned.
CASES: dict[str, dict[str, int]] = {
    **{f"heads16_tiles{n}": {"tiles": n, "num_heads": 16} for n in (1, 7, 10, 15, 130, 1023, 1024, 1025, 1501)},
    **{f"heads12_tiles{n}": {"tiles": n, "num_heads": 12} for n in (7, 130, 1025)},
    "heads3_tiles1025": {"tiles": 1025, "num_heads": 3},
    **{
        f"wsi{size}_heads{heads}": {"tiles": 1501, "num_heads": heads, "max_wsi_size": size}
        for size, heads in ((20000, 16), (4096, 12), (2000, 16), (512, 12))
    },
}


def main() -> None:
    """Run every case through the reference and write the file beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, required=True, help="a checkout of prov-gigapath")
    slide_encoder = import_published(parser.parse_args().reference)
    weights, tensors = synthetic_inputs()
    for name, case in CASES.items():
        model = build_published(slide_encoder, **TOY, **{k: v for k, v in case.items() if k != "tiles"})
        model.load_state_dict({key: value.float() for key, value in weights.items()}, strict=True)
        inputs = (tensors[key][: case["tiles"]].float() for key in ("tile_features", "coords"))
        tensors |= {f"{name}.{key}": value for key, value in kept_of(*run_published(model, *inputs)).items()}
    tensors |= {f"weights.{name}": value for name, value in weights.items()}
    metadata = {"reference": f"prov-gigapath/prov-gigapath@{COMMIT}", "cases": json.dumps(CASES)}
    target = Path(__file__).parent / "golden" / "longnet.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, target, metadata)


@torch.no_grad()
def run_published(model: Any, tile_features: Tensor, coords: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """One slide: the four outputs of its forward; its states and `encoder_out` [depth + 2, T, D], by a hook."""
    recorded: list[dict[str, Any]] = []
    model.encoder.register_forward_hook(lambda module, args, result: recorded.append(result))
    outputs = {}
    for pooled, name in ((False, "cls"), (True, "global_pool")):
        model.global_pool = pooled
        outputs[name] = model(tile_features[None], coords[None])[0][0]
        outputs[f"all_layer_{name}"] = torch.cat(model(tile_features[None], coords[None], all_layer_embed=True))
    return outputs, torch.cat([*recorded[1]["encoder_states"], recorded[1]["encoder_out"]])


def kept_of(outputs: dict[str, Tensor], states: Tensor) -> dict[str, Tensor]:
    """What the file keeps of a case."""
    rows = kept_rows(states.shape[1])
    return outputs | {
        "rows": rows,
        "states": states[:-1, rows],
        "encoder_out": states[-1, rows],
        "means": states.mean(dim=1),
    }


def kept_rows(tokens: int) -> Tensor:
    """Token numbers whose values are kept: the first ones, the last ones, and some between."""
    edge = torch.arange(min(6, tokens))
    between = torch.linspace(0, tokens - 1, ROWS_KEPT - 2 * len(edge)).round().long() if tokens > 6 else edge
    return torch.cat([edge, tokens - 1 - edge, between]).unique()


def synthetic_inputs() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights by published name, and features and coordinates of the largest case. No bias is zero."""
    tiles = max(case["tiles"] for case in CASES.values())
    random = torch.Generator().manual_seed(20260)
    features = torch.randn(tiles, IN_CHANS, generator=random).half()
    coords = (torch.rand(tiles, 2, generator=random) * SLIDE_NGRIDS * 256).floor()
    shapes = published_shapes()
    return {name: synthetic_weight(name, shape, random) for name, shape in shapes.items()}, {
        "tile_features": features,
        "coords": coords,
    }


def synthetic_weight(name: str, shape: tuple[int, ...], random: torch.Generator) -> Tensor:
    """Values that keep every part of the model at work: norms near 1, sharp attention, biases far from 0."""
    values = torch.randn(shape, generator=random)
    if name.endswith("bias") or name == "cls_token":
        return (0.3 * values).half()
    return (1 + 0.2 * values if len(shape) == 1 else 1.5 * values / math.sqrt(shape[1])).half()


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published state dict, at toy size."""
    width, hidden = EMBED_DIM, 4 * EMBED_DIM
    shapes: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, width)}
    linears = {"patch_embed.proj": (width, IN_CHANS)}
    norms = {"encoder.layer_norm": width, "norm": width}
    for layer in (f"encoder.layers.{number}" for number in range(DEPTH)):
        linears |= {f"{layer}.self_attn.{name}_proj": (width, width) for name in ("q", "k", "v", "out")}
        linears |= {f"{layer}.ffn.fc1": (hidden, width), f"{layer}.ffn.fc2": (width, hidden)}
        norms |= {f"{layer}.{name}": width for name in ("self_attn_layer_norm", "final_layer_norm")}
        norms |= {f"{layer}.self_attn.inner_attn_ln": width, f"{layer}.ffn.ffn_layernorm": hidden}
    for name, shape in linears.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name, size in norms.items():
        shapes |= {f"{name}.weight": (size,), f"{name}.bias": (size,)}
    return shapes


if __name__ == "__main__":
    main()
