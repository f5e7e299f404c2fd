"""A conversion's memory stays under 1.3 × the largest shard, whatever form the shards have."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

SHARDS, TENSORS, ROWS = 2, 128, 512
SHARD_BYTES = TENSORS * ROWS * ROWS * 4
LIMIT = 1.3

# Resident memory over what the imports need, at its peak. Writing 5 to clear_refs resets the peak (proc(5)).
CHILD = f"""
import sys
from functools import partial
from pathlib import Path
from model_store.files.checkpoint_files import read_shard
from model_store.convert.convert_weights import Shard, Target, plan_conversion, write_planned
from model_store.convert.merge_lora import LoraAdapter, LoraConfig, LoraFactors
from model_store.convert.tensor_names import LLAVA
import torch

def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

files, dtype = sorted(Path(sys.argv[1]).iterdir()), sys.argv[2]
names = [f"w{{shard}}.{{number}}" for shard in range({SHARDS}) for number in range({TENSORS})]
factors = {{name: LoraFactors(torch.ones(4, {ROWS}), torch.ones({ROWS}, 4)) for name in names}}
adapter = LoraAdapter(LoraConfig(peft_type="LORA", r=4, lora_alpha=8), factors)
target = Target("model", LLAVA, dict.fromkeys(names, ({ROWS}, {ROWS})), dtype)
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
plan = plan_conversion([Shard(file.name, partial(read_shard, file)) for file in files], target)
for number, shard in enumerate(plan.shards):
    write_planned(Path(sys.argv[1]).parent / f"out-{{number}}", [shard], target, adapter.merge)
print(resident("VmHWM") - before)
"""


def write_shard(path: Path, number: int, form: str) -> None:
    tensors = {f"w{number}.{index}": torch.full((ROWS, ROWS), float(index)) for index in range(TENSORS)}
    if form == "safetensors":
        save_file(tensors, path / f"{number}.safetensors")
    else:
        torch.save(tensors, path / f"{number}.bin", _use_new_zipfile_serialization=form == "pickle")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("form", ["pickle", "pickle of PyTorch before 1.6", "safetensors"])
@pytest.mark.parametrize("dtype", ["float16"])
def test_memory_is_bounded_by_the_largest_shard(tmp_path: Path, form: str, dtype: str) -> None:
    (tmp_path / "in").mkdir()
    for number in range(SHARDS):
        write_shard(tmp_path / "in", number, form)

    child = subprocess.run([sys.executable, "-c", CHILD, tmp_path / "in", dtype], capture_output=True, text=True)

    assert child.returncode == 0, child.stderr
    assert int(child.stdout) < LIMIT * SHARD_BYTES, f"{int(child.stdout) / SHARD_BYTES:.2f} × the shard"
    print(f"{form}, {dtype}: {int(child.stdout) / SHARD_BYTES:.2f} × the largest shard")
