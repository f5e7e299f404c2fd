"""What goes on which stream and who waits for whom, told by stand-ins of CUDA's streams and events."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from encoders.tile_encoder import staging as module
from encoders.tile_encoder.staging import Staging

CPU = torch.device("cpu")


class Cuda(TorchDispatchMode):
    """Notes, in order, every copy with the stream it is on, and every wait."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.on = "compute"
        self.is_done = False
        self.pinned: list[bool] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.copy_.default:
            self.notes.append(f"{self.on}: copy{', nobody waits' if args[2:] == (True,) else ', the host waits'}")
        return func(*args, **(kwargs or {}))

    def stream(self, name: str) -> Any:
        cuda = self

        class Stream:
            def wait_stream(self, other: Any) -> None:
                cuda.notes.append(f"{name} waits for {other.name}")

        made: Any = Stream()
        made.name = name
        return made

    @contextmanager
    def on_stream(self, stream: Any) -> Iterator[None]:
        before, self.on = self.on, stream.name
        yield
        self.on = before

    def event(self, **_: object) -> Any:
        cuda = self

        class Event:
            def record(self, stream: Any) -> None:
                cuda.notes.append(f"{stream.name}: event")

            def query(self) -> bool:
                return cuda.is_done

            def synchronize(self) -> None:
                cuda.notes.append("the host waits for the event")

        return Event()

    def host_buffer(self, shape: tuple[int, ...], dtype: torch.dtype, *, is_pinned: bool) -> Tensor:
        self.pinned.append(is_pinned)
        return torch.zeros(shape, dtype=dtype)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cuda]:
    cuda = Cuda()
    compute = cuda.stream("compute")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: compute)
    monkeypatch.setattr(torch.cuda, "stream", cuda.on_stream)
    monkeypatch.setattr(torch.cuda, "Event", cuda.event)
    monkeypatch.setattr(module, "_host_buffer", cuda.host_buffer)
    with cuda:
        yield cuda


def test_pixels_come_on_a_stream_of_their_own_and_nobody_waits_before_features_are_asked_for(cuda: Cuda) -> None:
    staging = Staging(2, 4, CPU, cuda.stream("copies"))
    staging.pixels[:] = 7
    cuda.notes.clear()

    on_device = staging.to_device()
    staging.bring_back(on_device.sum((1, 2, 3)).float()[:, None])

    assert cuda.notes == [
        "copies: copy, nobody waits",
        "compute waits for copies",
        "compute: copy, nobody waits",
        "compute: event",
    ]
    assert cuda.pinned == [True, True], "pixels and features: what is not page-locked is copied while the host waits"
    assert not staging.is_back()
    cuda.notes.clear()
    assert np.array_equal(staging.features(1), [[7 * 4 * 4 * 3]])
    assert cuda.notes == ["the host waits for the event"]


def test_new_buffers_are_not_written_while_work_that_is_queued_uses_their_memory(cuda: Cuda) -> None:
    Staging(2, 4, CPU, cuda.stream("copies"))

    assert cuda.notes == ["copies waits for compute"]


def test_on_the_cpu_nothing_is_copied_and_nothing_waited_for(cuda: Cuda) -> None:
    staging = Staging(2, 4, CPU, None)
    staging.pixels[:] = 7

    staging.bring_back(staging.to_device().sum((1, 2, 3)).float()[:, None])

    assert staging.is_back()
    assert staging.features(2).tolist() == [[336], [336]]
    assert cuda.notes == []
    assert cuda.pinned == [False]
