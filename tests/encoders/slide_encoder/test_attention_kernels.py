import pytest
import torch
from torch import Tensor

from encoders.slide_encoder import attention_kernels
from encoders.slide_encoder.attention_kernels import attention_with_lse, materialised_attention


def random_qkv(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, device: str = "cpu") -> list[Tensor]:
    random = torch.Generator().manual_seed(7)
    return [torch.randn(shape, generator=random).to(device, dtype) for _ in range(3)]


@pytest.mark.parametrize("shape", [(1, 16, 130, 48), (3, 2, 65, 3), (2, 1, 1, 64)])
def test_the_kernel_equals_a_softmax_in_double_precision(shape: tuple[int, ...]) -> None:
    query, key, value = random_qkv(shape)

    out, lse = attention_with_lse(query, key, value)

    scores = query.double() @ key.double().mT / shape[-1] ** 0.5
    torch.testing.assert_close(out.double(), scores.softmax(-1) @ value.double(), atol=2e-6, rtol=0)
    torch.testing.assert_close(lse.double(), scores.logsumexp(-1), atol=2e-6, rtol=0)


def test_the_kernel_reads_strided_views() -> None:
    every_third_token = [x.transpose(1, 2)[:, :, ::3] for x in random_qkv((2, 90, 4, 8))]

    out, lse = attention_with_lse(*every_third_token)

    copied_out, copied_lse = attention_with_lse(*(view.contiguous() for view in every_third_token))
    torch.testing.assert_close(out, copied_out)
    torch.testing.assert_close(lse, copied_lse)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_half_precision_keeps_the_log_sum_exp_in_fp32(dtype: torch.dtype, atol: float) -> None:
    qkv = random_qkv((2, 4, 130, 16))

    out, lse = attention_with_lse(*(x.to(dtype) for x in qkv))

    exact_out, exact_lse = attention_with_lse(*qkv)
    assert (out.dtype, lse.dtype) == (dtype, torch.float32)
    torch.testing.assert_close(out.float(), exact_out, atol=atol, rtol=0)
    torch.testing.assert_close(lse, exact_lse, atol=atol, rtol=0)


def test_the_fallback_gives_the_same_in_any_number_of_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    qkv = random_qkv((2, 3, 101, 12))
    monkeypatch.setattr(attention_kernels, "FALLBACK_SCORES", 2 * 3 * 101 * 10)

    out, lse = materialised_attention(*qkv)

    kernel_out, kernel_lse = attention_with_lse(*qkv)
    torch.testing.assert_close(out, kernel_out, atol=2e-6, rtol=0)
    torch.testing.assert_close(lse, kernel_lse, atol=2e-6, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("channels", [48, 6])
def test_the_gpu_kernel_equals_the_cpu_kernel(channels: int) -> None:
    out, lse = attention_with_lse(*random_qkv((2, 4, 333, channels), device="cuda"))

    cpu_out, cpu_lse = attention_with_lse(*random_qkv((2, 4, 333, channels)))
    torch.testing.assert_close(out.cpu(), cpu_out, atol=1e-5, rtol=0)
    torch.testing.assert_close(lse.cpu(), cpu_lse, atol=1e-5, rtol=0)
