"""Makes golden/longnet_digests.safetensors: the published code on long slides, and at full size.

    PYTHONPATH=tests/support python tests/encoders/slide_encoder/make_golden_digests.py --reference prov-gigapath

make_golden.py says how to get the reference. Weights and slides are not stored but computed from their names
(tests/support/hashed_numbers.py). The file holds, per case of the JSON in its metadata: the four published outputs;
every state and `encoder_out` at the row numbers in `rows`; and of the last state and of `encoder_out` a digest of every
row, so that no token escapes the comparison.

At full size the grid has 320 cells a side instead of the published 1000, whose table takes the reference 15 GB to
build; test_positions.py compares the table itself.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from hashed_numbers import hashed_slide, hashed_weight, row_digest
from make_golden import DEPTH, EMBED_DIM, IN_CHANS, SLIDE_NGRIDS, run_published
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.published_slide_encoder import COMMIT, build_published, import_published

TOY = {"in_chans": IN_CHANS, "embed_dim": EMBED_DIM, "depth": DEPTH, "slide_ngrids": SLIDE_NGRIDS}
FULL_SIZE = {"in_chans": 1536, "embed_dim": 768, "depth": 12, "num_heads": 16, "slide_ngrids": 320}
# Borders of the two segment lengths that such slides reach, 1024 and 5792, counted in tokens: tiles + 1.
LENGTHS = (5000, 5790, 5791, 5792, 5793, 12_000)
SHORT_LENGTHS = (1, 15, 1023, 1024)  # with 12 heads: make_golden.py has the other short ones, and all with 16
CASES: dict[str, dict[str, int]] = {
    **{f"heads16_tiles{n}": {**TOY, "tiles": n, "num_heads": 16} for n in LENGTHS},
    **{f"heads12_tiles{n}": {**TOY, "tiles": n, "num_heads": 12} for n in (*SHORT_LENGTHS, *LENGTHS)},
    # The reference's own configuration for another data set: its branch (23170, 4) is misaligned from here on.
    "wsi250000_heads12_tiles23200": {**TOY, "tiles": 23_200, "num_heads": 12, "max_wsi_size": 250_000},
    **{f"full_size_tiles{n}": {**FULL_SIZE, "tiles": n} for n in (130, 1025)},
}
BORDERS = (1024, 5792, 23_170)


def main() -> None:
    """Run every case through the reference and write the file beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path, required=True, help="a checkout of prov-gigapath")
    slide_encoder = import_published(parser.parse_args().reference)
    tensors: dict[str, Tensor] = {}
    for name, case in CASES.items():
        print(name, flush=True)
        sizes = {key: value for key, value in case.items() if key != "tiles"}
        model = with_hashed_weights(build_published(slide_encoder, **sizes))
        slide = hashed_slide(case["tiles"], case["in_chans"], case["slide_ngrids"])
        tensors |= {f"{name}.{key}": value for key, value in kept_of(*run_published(model, *slide)).items()}
    metadata = {"reference": f"prov-gigapath/prov-gigapath@{COMMIT}", "cases": json.dumps(CASES)}
    target = Path(__file__).parent / "golden" / "longnet_digests.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, target, metadata)


def with_hashed_weights(model: Any) -> Any:
    """The model with every weight computed from its name."""
    weights = {name: hashed_weight(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()}
    model.load_state_dict(weights, strict=True)
    return model


def kept_of(outputs: dict[str, Tensor], states: Tensor) -> dict[str, Tensor]:
    """What the file keeps of a case."""
    tokens = states.shape[1]
    rows = kept_rows(tokens, few=states.shape[2] > EMBED_DIM)
    digests = torch.stack([row_digest(state) for state in states[-2:]])
    return outputs | {"rows": rows, "states": states[:-1, rows], "encoder_out": states[-1, rows], "digests": digests}


def kept_rows(tokens: int, few: bool) -> Tensor:
    """Token numbers whose values are kept: at both ends, around the segments' borders, in the middle."""
    near = [0, tokens // 2, tokens - 1] if few else [0, 1, 2, tokens // 3, tokens // 2, tokens - 2, tokens - 1]
    borders = [] if few else [border + step for border in BORDERS for step in (-1, 0, 1)]
    return torch.tensor(sorted({row for row in (*near, *borders) if 0 <= row < tokens}))


if __name__ == "__main__":
    main()
