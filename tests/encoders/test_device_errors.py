import pytest
import torch

from encoders.device_errors import told_as_ours
from encoders.errors import DeviceLost


def test_an_error_of_the_device_is_told_in_our_words() -> None:
    with pytest.raises(DeviceLost, match="restart the worker"), told_as_ours():
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("2 GiB"), ValueError("no")])
def test_other_errors_pass_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)), told_as_ours():
        raise error
