"""The tile encoder with 8-bit products on the device against the published model in float32 on the CPU."""

import torch

from benchmarks.gpu_check.published_models import tile_encoder_spec
from benchmarks.gpu_check.results import CheckSkipped, Finding
from benchmarks.gpu_check.setting import Setting
from benchmarks.gpu_check.tile_parity import agreement, expected_features, features, spec_of
from encoders.tile_encoder.float8_gate import LEAST_COSINE, require_float8_device
from model_store.errors import ModelError

# 8-bit products with one scale per row, computed on a CPU: 0.9967 after 40 blocks of random weights, which change more
# than a trained model's. Features of two different tiles have 0.973 at most.
_LEAST_COSINE = 0.99


def check(setting: Setting) -> Finding:
    """Skipped where the encoder itself would refuse."""
    try:
        require_float8_device(torch.device(setting.device))
    except ModelError as error:
        raise CheckSkipped(str(error)) from error
    assert tile_encoder_spec(setting).matmul == "dtype", "published so: 8 bits have to be asked for"
    spec = spec_of(setting, "float16").model_copy(update={"matmul": "float8"})
    found = features(setting, spec, float8_least_cosine=-1.0)
    source = "random weights; a CPU's emulation has 0.9967"
    return Finding(
        numbers=(agreement("float8", found, expected_features(setting), (_LEAST_COSINE, source)),),
        notes=(f"The gate for weights that are served is {LEAST_COSINE} to 16 bits.",),
    )
