"""Makes golden/cells.safetensors: what the public code of MLLM-HWSI finds in drawn maps, and CellViT-256's logits.

The reference is github.com/BasitAlawode/HWSI-MLLM at commit 68f33ac, run unmodified on the CPU:

    git clone https://github.com/BasitAlawode/HWSI-MLLM && git -C HWSI-MLLM checkout 68f33ac
    python tests/encoders/hierarchical/make_golden_cells.py --reference HWSI-MLLM

Empty modules stand for what it imports and never calls here (cupy, pandas, einops), a decorator that does nothing for
numba's, and today's `scipy.ndimage` for its old `measurements`: none of them changes a number.

The file holds `<case>.<field of Cells>` of every case of `drawn_cells.drawn_cases`, contours one after another, and of
two pictures of 64 x 96 px `cellvit.<map>`: each 4th pixel of each 4th row, the means over all pixels, each 8th channel
of the tokens.
"""

import argparse
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

import encoders.tile_encoder.torchvision_ops  # noqa: F401 - declares what the reference's torchvision asks for

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "tests/support"))

from drawn_cells import DrawnMaps, cellvit_weight, drawn_cases, drawn_pictures  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402

COMMIT = "68f33ac"


def import_published(checkout: Path) -> tuple[Any, Any]:
    """The class of the network, and that which looks for cells in its maps."""
    for name in ("cupy", "cupyx", "cupyx.scipy", "cupyx.scipy.ndimage", "pandas", "einops", "numba"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["cupy"].ndarray = object  # type: ignore[attr-defined]
    sys.modules["einops"].rearrange = None  # type: ignore[attr-defined]
    sys.modules["cupyx.scipy"].ndimage = sys.modules["cupyx.scipy.ndimage"]  # type: ignore[attr-defined]
    sys.modules["numba"].jit = lambda **_: lambda function: function  # type: ignore[attr-defined]
    measurements = types.ModuleType("measurements")
    measurements.label = ndimage.label  # type: ignore[attr-defined]
    ndimage.measurements = measurements
    sys.path.insert(0, str(checkout))
    from cellvit.models.cell_segmentation.cellvit_256 import CellViT256
    from cellvit.models.cell_segmentation.postprocessing import DetectionCellPostProcessor

    return CellViT256, DetectionCellPostProcessor


def published_cells(processor: Any, maps: DrawnMaps) -> dict[str, np.ndarray]:
    """One case, in the form of `Cells`."""
    stacked = np.concatenate([maps.kind[..., None], maps.nucleus[..., None], maps.distance], axis=-1)
    instances, found = processor.post_process_single_image(stacked)
    cells = list(found.values())
    return {
        "instances": instances.astype(np.uint8),
        "numbers": np.array(list(found), np.int32),
        "centroids": np.array([c["centroid"] for c in cells], np.float64).reshape(-1, 2),
        "boxes": np.array([np.ravel(c["bbox"]) for c in cells], np.int32).reshape(-1, 4),
        "kinds": np.array([c["type"] for c in cells], np.int32),
        "kind_shares": np.array([c["type_prob"] for c in cells], np.float64),
        "contour_lengths": np.array([len(c["contour"]) for c in cells], np.int32),
        "contours": np.concatenate([np.zeros((0, 2), np.int32), *(c["contour"] for c in cells)]).astype(np.int32),
    }


def published_maps(network: Any) -> dict[str, np.ndarray]:
    """The network at its true size under made-up weights."""
    model = network(None, 6, 19).eval()
    state = {name: cellvit_weight(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()}
    model.load_state_dict(state, strict=True)
    picture = torch.from_numpy(drawn_pictures(2, 64, 96)).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        out = model(((picture / 255) - 0.5) / 0.5, retrieve_tokens=True)
    maps = {"nucleus": "nuclei_binary_map", "distance": "hv_map", "kind": "nuclei_type_map"}
    kept = {name: out[published][:, :, 1::4, 2::4].numpy() for name, published in maps.items()}
    kept |= {f"{name}_mean": out[published].mean((2, 3)).numpy() for name, published in maps.items()}
    return kept | {"tokens": out["tokens"][:, ::8].numpy()}


def main() -> None:
    """Run every case through the reference and write the file beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, required=True, help="a checkout of HWSI-MLLM")
    network, post_processor = import_published(parser.parse_args().reference)
    processor = post_processor(nr_types=6, magnification=40)
    tensors = {
        f"{case}.{name}": array
        for case, maps in drawn_cases().items()
        for name, array in published_cells(processor, maps).items()
    }
    tensors |= {f"cellvit.{name}": array for name, array in published_maps(network).items()}
    target = Path(__file__).parent / "golden" / "cells.safetensors"
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    save_file(contiguous, target, {"reference": f"BasitAlawode/HWSI-MLLM@{COMMIT}"})
    print(f"{target}: {len(tensors)} tensors, {target.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
