import pytest

from encoders.tiling.slide_readers.decode_buffer import decode_buffer


@pytest.mark.parametrize("shape", [(256, 256, 3), (4, 240, 240, 3), (7, 5, 3)])
def test_it_lies_between_two_multiples_of_32_bytes(shape: tuple[int, ...]) -> None:
    buffers = [decode_buffer(*shape) for _ in range(8)]

    assert {buffer.ctypes.data % 32 for buffer in buffers} == {16}
    assert {buffer.shape for buffer in buffers} == {shape}
    assert all(buffer.flags.c_contiguous and buffer.flags.writeable for buffer in buffers)
