"""flash-attn as a kernel: packing, unpacking and the mix of its sums, here with a stand-in of its interface."""

import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from encoders.slide_encoder.attention_kernels import Qkv, attention_with_lse
from encoders.slide_encoder.dilated_attention import Branch, buffer_rows, dilated_attention
from encoders.slide_encoder.encode import SlideEncoder
from encoders.slide_encoder.flash_attention import attend_in_one_call, load_flash_attention
from encoders.slide_encoder.longnet import LongNetViT
from model_store.errors import ModelError
from model_store.installed import InstalledModel

CUDA = torch.device("cuda")
BRANCHES = (Branch(8, 1), Branch(16, 2), Branch(24, 4), Branch(48, 8), Branch(64, 16))
# The last is misaligned, for which torch's kernel is asked.
SHIFTED = (Branch(8, 1), Branch(16, 2), Branch(18, 4))


class Varlen:
    """What flash_attn 2.6's `flash_attn_varlen_func` takes and gives, computed plainly; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        dropout_p: float = 0.0,
        *,
        return_attn_probs: bool = False,
    ) -> Any:
        self.calls += 1
        ends: list[int] = cu_seqlens_q.tolist()
        assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
        assert torch.equal(cu_seqlens_q, cu_seqlens_k)
        assert (ends[0], ends[-1]) == (0, len(q))
        assert max_seqlen_q == max_seqlen_k == max(last - first for first, last in pairwise(ends))
        assert all(x.dim() == 3 and x.shape == q.shape and x.stride(-1) == 1 for x in (q, k, v))
        out, lse = torch.empty_like(q), torch.empty(q.shape[1], len(q))
        for first, last in pairwise(ends):
            scores = torch.einsum("qhd,khd->hqk", q[first:last].float(), k[first:last].float()) * q.shape[2] ** -0.5
            lse[:, first:last] = scores.logsumexp(2)
            out[first:last] = torch.einsum("hqk,khd->qhd", scores.softmax(2), v[first:last].float()).to(q.dtype)
        return (out, lse, None) if return_attn_probs else out


def random_qkv(*shape: int) -> Qkv:
    random = torch.Generator().manual_seed(sum(shape))
    query, key, value = (torch.randn(shape, generator=random) for _ in range(3))
    return query, key, value


def test_each_of_many_gets_its_own_result_by_one_call_for_as_many_heads() -> None:
    together = [random_qkv(3, 2, 7, 8), random_qkv(1, 2, 1, 8), random_qkv(2, 1, 5, 8), random_qkv(1, 2, 40, 8)]
    strided = tuple(x.transpose(1, 2)[:, :, ::3] for x in random_qkv(2, 60, 2, 8))
    together.append(strided)  # type: ignore[arg-type]
    varlen = Varlen()

    attended = list(attend_in_one_call(varlen, together))

    assert varlen.calls == 2, "two heads, one head"
    for (out, lse), qkv in zip(attended, together, strict=True):
        expected_out, expected_lse = attention_with_lse(*qkv)
        torch.testing.assert_close(out, expected_out, atol=2e-6, rtol=0)
        torch.testing.assert_close(lse, expected_lse, atol=2e-6, rtol=0)


@pytest.mark.parametrize("branches", [BRANCHES, SHIFTED])
@pytest.mark.parametrize("heads", [16, 12, 1])
@pytest.mark.parametrize("tokens", [2, 8, 9, 17, 65, 130])
def test_dilated_attention_is_the_same_with_it(tokens: int, heads: int, branches: tuple[Branch, ...]) -> None:
    random = torch.Generator().manual_seed(tokens)
    padding = buffer_rows(tokens, branches) - tokens
    qkv = [torch.randn(tokens, heads, 8, generator=random) + 0.5 for _ in range(3)]
    padded = [functional.pad(x, (0, 0, 0, 0, 0, padding)) for x in qkv]

    mixed = dilated_attention(*padded, tokens, branches, partial(attend_in_one_call, Varlen()))

    torch.testing.assert_close(mixed, dilated_attention(*padded, tokens, branches), atol=2e-6, rtol=0)


def test_the_whole_encoder_is_the_same_with_it() -> None:
    torch.manual_seed(0)
    model = LongNetViT(in_chans=24, embed_dim=96, depth=2, num_heads=12).eval().requires_grad_(False)
    features = torch.randn(1300, 24)
    coords = torch.stack([torch.arange(1300) % 40, torch.arange(1300) // 40], 1) * 256
    with torch.inference_mode():
        expected = model(features, coords).encoder_out
        varlen = Varlen()
        model.use_attention(partial(attend_in_one_call, varlen))

        found = model(features, coords).encoder_out

    assert varlen.calls >= 2 * 5, "every branch of every layer"
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("device", "dtype"), [("cpu", torch.float16), ("cuda", torch.float32)])
def test_what_it_cannot_compute_is_refused_with_what_to_set(device: str, dtype: torch.dtype) -> None:
    with pytest.raises(ModelError, match="EYEPIECE_SLIDE_ATTENTION to torch"):
        load_flash_attention(torch.device(device), dtype)


@pytest.mark.parametrize("package", [None, SimpleNamespace()])
def test_a_package_that_is_not_there_or_too_old_is_refused(monkeypatch: pytest.MonkeyPatch, package: object) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", package)  # type: ignore[arg-type]

    with pytest.raises(ModelError, match=r"2\.6 or newer"):
        load_flash_attention(CUDA, torch.float16)


def test_sums_of_an_old_form_are_refused_and_not_misread() -> None:
    def padded(varlen: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        out, lse, _ = varlen(*arguments, **options)
        return out, lse[None], None  # [sequences, heads, longest], before 2.6

    with pytest.raises(ModelError, match=r"2\.6 or newer"):
        list(attend_in_one_call(partial(padded, Varlen()), [random_qkv(1, 2, 7, 8)]))


def test_a_slide_encoder_that_is_to_use_it_and_cannot_does_not_start(demo_model: InstalledModel) -> None:
    with pytest.raises(ModelError, match="flash-attn"):
        SlideEncoder(
            demo_model.manifest.slide_stage,
            demo_model.file(demo_model.manifest.slide_stage.weights),
            torch.device("cpu"),
            "flash-attn",
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is None, reason="flash-attn is not installed")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_package_itself_equals_ours(dtype: torch.dtype) -> None:
    together = [random_qkv(3, 8, 333, 48), random_qkv(1, 8, 70, 48), random_qkv(1, 16, 1024, 48)]
    on_gpu = [tuple(x.to(CUDA, dtype) for x in qkv) for qkv in together]

    attended = load_flash_attention(CUDA, dtype)(on_gpu)  # type: ignore[arg-type]

    atol = 2e-3 if dtype == torch.float16 else 2e-2
    for (out, lse), qkv in zip(attended, together, strict=True):
        expected_out, expected_lse = attention_with_lse(*qkv)
        torch.testing.assert_close(out.cpu().float(), expected_out, atol=atol, rtol=0)
        torch.testing.assert_close(lse.cpu(), expected_lse, atol=atol, rtol=0)
