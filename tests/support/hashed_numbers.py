"""Numbers computed from a name by integer arithmetic: the same bits on every machine, with every numpy and torch.

Reference outputs are stored for weights and slides that nobody stores: whoever needs them computes them again.
"""

import hashlib
import math

import numpy as np
import torch
from torch import Tensor

# SplitMix64 (Steele, Lea, Flood 2014): number i of a stream is a hash of start + i · INCREMENT, modulo 2^64.
_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
_UNIT_VARIANCE = math.sqrt(3)


def hashed_uniform(name: str, *shape: int) -> Tensor:
    """Uniform in [-1, 1), fp32, in steps of 2^-23, so exact; the stream starts at a hash of `name`."""
    start = np.uint64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    bits = np.arange(math.prod(shape), dtype=np.uint64)
    bits *= _INCREMENT
    bits += start
    for shift, multiplier in zip(_SHIFTS[:2], _MULTIPLIERS, strict=True):
        bits ^= bits >> shift
        bits *= multiplier
    bits ^= bits >> _SHIFTS[2]
    values = ((bits >> np.uint64(40)).astype(np.float32) - np.float32(2**23)) * np.float32(2**-23)
    return torch.from_numpy(values.reshape(shape))


def hashed_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor of the published slide encoder that keeps every part of it at work, fp32.

    Norms lie near 1, biases far from 0, and products are large enough for sharp attention.
    """
    values = hashed_uniform(name, *shape) * _UNIT_VARIANCE
    if name.endswith("bias") or name == "cls_token":
        return values * 0.3
    return 1 + 0.2 * values if len(shape) == 1 else values * (1.5 / math.sqrt(shape[1]))


def hashed_slide(tiles: int, in_chans: int, slide_ngrids: int) -> tuple[Tensor, Tensor]:
    """Features fp32 [L, in_chans] of unit variance, and whole level-0 (x, y) anywhere on a grid of 256 px [L, 2]."""
    features = hashed_uniform("tile_features", tiles, in_chans) * _UNIT_VARIANCE
    places = (hashed_uniform("coords", tiles, 2) + 1) / 2
    return features, (places * (slide_ngrids * 256)).floor()


def row_digest(rows: Tensor) -> Tensor:
    """One number per row: its product with a fixed vector of length 1. fp32 [T, D] → fp32 [T].

    Summed in double precision, it carries an error e of a row as e · (that vector): about e's root mean square, and
    not less for being spread over many channels or hidden among rows that are right.
    """
    direction = torch.sign(hashed_uniform("direction", rows.shape[1])).double()
    return (rows.double() @ direction / math.sqrt(rows.shape[1])).float()
