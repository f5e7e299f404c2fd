"""Makes golden/slidechat.safetensors: what SlideChat's own code makes of tile features, under synthetic weights.

The reference is github.com/uni-medical/SlideChat at commit aa1ff55, run unmodified on the CPU:

    git clone https://github.com/uni-medical/SlideChat && git -C SlideChat checkout aa1ff55
    pip install einops
    PYTHONPATH=.:tests/support python tests/encoders/slide_encoder/make_slidechat_golden.py --reference SlideChat

Its LongNet is called as `xtuner/model/llava.py` and `xtuner/tools/test.py` call it, `token_embeddings` being
features [1, N, 512] with the first two axes exchanged: `rows`. `as_one_sequence` is the same without the exchange,
which is not what was trained. Weights and features are tests/support/hashed_numbers.py's and are not in the file.
"""

import argparse
import contextlib
import io
import math
from pathlib import Path

import torch
from hashed_numbers import hashed_uniform, hashed_weight
from safetensors.torch import save_file

from benchmarks.published_slide_encoder import import_on_cpu

COMMIT = "aa1ff55"
TILES, WIDTH = 12, 512


def main() -> None:
    """Run both readings and write the file beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, required=True, help="a checkout of SlideChat")
    longnet = import_on_cpu(parser.parse_args().reference / "xtuner" / "model", "torchscale.model.LongNet")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its own options
        model = longnet.make_longnet_from_name("LongNet_2_layers_512_dim").eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict({name: hashed_weight(name, shape) for name, shape in shapes.items()}, strict=True)
    features = (hashed_uniform("tile_features", TILES, WIDTH) * math.sqrt(3))[None]
    with torch.inference_mode():
        rows = model(src_tokens=None, token_embeddings=features.permute(1, 0, 2))["encoder_out"].permute(1, 0, 2)
        sequence = model(src_tokens=None, token_embeddings=features)["encoder_out"]
    tensors = {"rows": rows[0].contiguous(), "as_one_sequence": sequence[0].contiguous()}
    target = Path(__file__).parent / "golden" / "slidechat.safetensors"
    save_file(tensors, target, {"reference": f"uni-medical/SlideChat@{COMMIT}"})


if __name__ == "__main__":
    main()
