import traceback
import weakref

import pytest
import torch
from torch import Tensor

from encoders.device_errors import translated_device_errors
from encoders.errors import DeviceLost, DeviceOutOfMemory


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        # Compiled kernels are started by Triton, whose errors torch does not know.
        RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
        RuntimeError("CUDA driver error: unspecified launch failure"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(...)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ],
)
def test_an_error_of_the_device_is_told_in_our_words(error: Exception) -> None:
    with pytest.raises(DeviceLost, match="restart the worker"), translated_device_errors():
        raise error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    ],
)
def test_a_full_device_is_another_error_than_one_that_has_failed(error: Exception) -> None:
    with pytest.raises(DeviceOutOfMemory, match="too little memory") as caught, translated_device_errors():
        raise error

    assert not isinstance(caught.value, DeviceLost)


@pytest.mark.parametrize("error", [ValueError("no"), RuntimeError("shapes differ"), DeviceLost("ours already")])
def test_other_errors_pass_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, translated_device_errors():
        raise error

    assert caught.value is error
    assert len(traceback.extract_tb(error.__traceback__)) > 0


def test_what_was_computed_when_memory_ran_out_is_let_go() -> None:
    held: list[weakref.ref[Tensor]] = []

    def compute() -> None:
        activations = torch.zeros(3)
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(DeviceOutOfMemory), translated_device_errors():
        compute()

    assert held[0]() is None, "the error that is still handled holds the frame"
