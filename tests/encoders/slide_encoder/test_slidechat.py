"""LongNet as SlideChat's own code runs it: vectors of make_slidechat_golden.py, at the published size."""

import math
from pathlib import Path

import pytest
import torch
from hashed_numbers import hashed_uniform, hashed_weight
from safetensors.torch import load_file
from torch import Tensor

from encoders.slide_encoder.dilated_attention import Branch, dilated_attention
from encoders.slide_encoder.longnet import Encoder

GOLDEN = load_file(Path(__file__).parent / "golden" / "slidechat.safetensors")
ALONE = (Branch(1, 1),)
PUBLISHED = tuple(Branch(1024 * 2**power, 2**power) for power in range(5))


def rows_of(branches: tuple[Branch, ...], tiles: int) -> Tensor:
    model = Encoder(2, 512, 8, 1024, branches)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict({name: hashed_weight(name, shape) for name, shape in shapes.items()}, strict=True)
    with torch.inference_mode():
        return model.eval()(hashed_uniform("tile_features", 12, 512)[:tiles] * math.sqrt(3), "last").encoder_out


@pytest.mark.parametrize(("branches", "reading"), [(ALONE, "rows"), (PUBLISHED, "as_one_sequence")])
def test_rows_equal_the_published_codes(branches: tuple[Branch, ...], reading: str) -> None:
    torch.testing.assert_close(rows_of(branches, 12), GOLDEN[reading], atol=1e-5, rtol=0)


def test_the_published_call_sees_each_tile_alone() -> None:
    assert (GOLDEN["rows"] - GOLDEN["as_one_sequence"]).abs().max() > 1, "the two readings are two models"
    torch.testing.assert_close(rows_of(ALONE, 3), GOLDEN["rows"][:3], atol=1e-5, rtol=0)


def test_a_token_alone_is_its_value_without_attending() -> None:
    query, key, value = torch.randn(3, 9, 4, 8, generator=torch.Generator().manual_seed(1)).unbind(0)

    torch.testing.assert_close(dilated_attention(query, key, value, 9, ALONE), value)
