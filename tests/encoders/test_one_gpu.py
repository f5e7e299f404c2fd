import os

import pytest

from encoders import device
from encoders.one_gpu import see_one_gpu
from encoders.tiling.isolation.reader_channel import child_environment
from model_store.errors import ModelError

GPU = "GPU-3b1f6a02-9a0f-4c55-8e2c-000000000001"
MIG = "MIG-7c2d1b54-1111-5e21-9a57-000000000002"


@pytest.mark.parametrize(
    ("device", "left", "seen", "called"),
    [
        ("auto", None, "0", "auto"),
        ("auto", "2,3", "2", "auto"),
        ("cuda", None, "0", "cuda"),
        ("cuda:0", None, "0", "cuda"),
        ("cuda:1", None, "1", "cuda"),
        ("cuda:1", "2, 3", "3", "cuda"),
        ("cuda:1", f"{GPU},{MIG}", MIG, "cuda"),
        ("cuda", "", "", "cuda"),  # hidden on purpose: nothing is there
        (GPU, "0,1", GPU, "cuda"),
        (MIG, None, MIG, "cuda"),
        ("MIG-GPU-3b1f6a02/1/0", None, "MIG-GPU-3b1f6a02/1/0", "cuda"),  # as older drivers call it
        ("cpu", None, None, "cpu"),
        ("mps", None, None, "mps"),
    ],
)
def test_a_process_sees_its_own_gpu_alone(device: str, left: str | None, seen: str | None, called: str) -> None:
    environment = {} if left is None else {"CUDA_VISIBLE_DEVICES": left}

    assert see_one_gpu(device, environment) == called

    assert environment.get("CUDA_VISIBLE_DEVICES") == seen


@pytest.mark.parametrize(("device", "said"), [("cuda:2", "leaves 2 to count"), ("cuda:0,cuda:1", "one each")])
def test_a_gpu_that_cannot_be_meant_is_refused(device: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        see_one_gpu(device, {"CUDA_VISIBLE_DEVICES": "4,5"})


def test_a_process_that_parses_files_sees_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")

    assert child_environment()["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize("name", [MIG, GPU, "cuda:1"])
def test_what_asks_for_other_processes_understands_the_same_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    seen: list[str] = []

    def is_available() -> bool:
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        return True

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"7,{MIG}")
    monkeypatch.setattr("torch.cuda.is_available", is_available)
    monkeypatch.setattr("sys.argv", ["encoders.device", name])

    assert device.main() == 0
    assert capsys.readouterr().out == "cuda\n"
    assert seen == [GPU if name == GPU else MIG]
