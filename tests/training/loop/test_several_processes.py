"""Two processes on CPUs: shards are gathered into the same files, and resuming is as exact as in one process."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from several_processes import RowOfBatch
from toy_language_model import TOY_LOW_RANK, toy_language_model
from training_tasks import settings

from training.errors import SettingsChanged
from training.loop.checkpoint import load_trained
from training.loop.run_stage import run_stage

SCRIPT = Path(__file__).parents[2] / "support" / "several_processes.py"


def run_two_processes(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    common = {
        **os.environ,
        "ACCELERATE_USE_CPU": "true",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GLOO_SOCKET_IFNAME": "lo",  # a machine whose own name does not resolve would wait for itself
    }
    processes = [
        subprocess.Popen([sys.executable, SCRIPT, folder], env={**common, "RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    assert [process.wait() for process in processes] == [0, 0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two-processes")
    run_two_processes(folder)
    return folder


@pytest.mark.parametrize("kind", ["copied", "sharded"])
def test_an_interrupted_run_goes_on_to_the_same_bits(kind: str, folder: Path) -> None:
    undisturbed, resumed = (folder / kind / name / "weights.safetensors" for name in ("undisturbed", "resumed"))

    assert resumed.read_bytes() == undisturbed.read_bytes()


def test_both_processes_had_a_part_in_it(folder: Path, tmp_path: Path) -> None:
    run_stage(toy_language_model(TOY_LOW_RANK), RowOfBatch(), settings(), tmp_path)

    alone, both = (
        (path / "weights.safetensors").read_bytes() for path in (tmp_path, folder / "copied" / "undisturbed")
    )
    assert json.loads((folder / "copied" / "undisturbed" / "done.json").read_text())["processes"] == 2
    assert alone != both


def test_another_number_of_processes_cannot_go_on(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "sharded" / "resumed", tmp_path, dirs_exist_ok=True)
    progress = tmp_path / "checkpoint-3" / "progress.json"
    progress.write_text(progress.read_text().replace('"processes": 1', '"processes": 2'))

    with pytest.raises(SettingsChanged, match="begun by 2 processes and this is 1"):
        run_stage(toy_language_model(TOY_LOW_RANK), RowOfBatch(), settings(), tmp_path)


@pytest.mark.parametrize("kind", ["copied", "sharded"])
def test_a_model_of_one_process_takes_the_weights(kind: str, folder: Path) -> None:
    model = toy_language_model(TOY_LOW_RANK)
    load_trained(model, folder / kind / "undisturbed")

    kept = load_file(folder / kind / "undisturbed" / "weights.safetensors")
    trained = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
    assert trained.keys() == kept.keys()
    assert all(torch.equal(trained[name], tensor) for name, tensor in kept.items())
    assert any("lora_B" in name and tensor.abs().sum() > 0 for name, tensor in kept.items())
