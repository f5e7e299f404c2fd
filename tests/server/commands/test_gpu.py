from pathlib import Path

import pytest

from server.commands import gpu
from server.commands.gpu import unusable_by_encoders


@pytest.mark.parametrize(
    ("device", "asked"),
    [
        ("cpu", []),
        ("auto", []),
        ("cuda:1", ["cuda:1"]),
        ("MIG-a, MIG-b", ["MIG-a", "MIG-b"]),
        ("cpu,cuda:0", ["cuda:0"]),
    ],
)
def test_each_device_that_a_worker_would_get_is_asked_about(
    monkeypatch: pytest.MonkeyPatch, device: str, asked: list[str]
) -> None:
    names: list[str] = []

    def run(_: Path, *arguments: str) -> tuple[int, str]:
        names.append(arguments[-1])
        return 0, ""

    monkeypatch.setattr(gpu, "_run", run)
    monkeypatch.setattr(gpu, "visible_gpus", lambda: ())

    assert unusable_by_encoders(device) is None
    assert names == asked
