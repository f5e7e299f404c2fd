"""benchmarks.gpu_check: the runner with made-up checks, the small run as a whole, and that checks can fail."""

import json
import os
import re
import select
import shutil
import subprocess
import sys
import tomllib
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up_checks import breaks_off, dies, hangs, leaves_a_child, made_up, misses, passes, skips
from numpy.typing import NDArray
from packaging.requirements import Requirement
from torch import Tensor
from torch._C._autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent

from benchmarks.gpu_check import __main__ as gpu_check
from benchmarks.gpu_check.checks import SUITE
from benchmarks.gpu_check.device_trace import Span, device_spans, idle_share, overlapped_share, shares
from benchmarks.gpu_check.gap import COMPILING, DEVICE_IDLE, PRODUCTS_ALONE, REACHED, explain_gap, time_in
from benchmarks.gpu_check.processes import without_paths
from benchmarks.gpu_check.results import Number, Outcome
from benchmarks.gpu_check.setting import Setting
from encoders.tile_encoder.encode import TileEncoder

ROOT = Path(__file__).resolve().parents[2]
# Ending takes milliseconds.
PATIENCE_S = 60
# What a machine for the checks has to have, and for the suite's own tests; no more.
NEEDED = ("torch", "timm", "transformers", "safetensors", "h5py", "numpy", "pydantic")
FOR_TESTS = ("pytest", "hypothesis")
BARE_PYTHON = """
import re, sys
from importlib.machinery import PathFinder

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in {absent} else PathFinder.find_spec(name, path, target)

    @staticmethod
    def find_distributions(*arguments, **named):
        found = PathFinder.find_distributions(*arguments, **named)
        return (each for each in found if re.sub("[-_.]", "-", each.metadata["Name"]).lower() in {kept})

sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
"""


def record(folder: Path) -> dict[str, dict[str, object]]:
    """Every check's outcome by its name."""
    (path,) = folder.glob("gpu_check-*.json")
    return {outcome["check"]: outcome for outcome in json.loads(path.read_text())["checks"]}


def test_one_that_fails_dies_or_hangs_takes_nothing_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = made_up(misses, breaks_off, dies, skips, passes)

    status = gpu_check.main(["--device", "cpu", "--out", str(tmp_path)], suite)

    shown = capsys.readouterr().out
    assert status == 1
    assert shown.splitlines()[-1] == "1 passed, 3 failed, 1 skipped"
    assert "before the end" in shown, "the log of one that died"
    found = record(tmp_path)
    assert [found[name]["state"] for name in found] == ["failed", "failed", "failed", "skipped", "passed"]
    assert found["misses"]["reason"] == "half: 0.5 (at least 1), because"
    assert found["breaks_off"]["reason"] == "ValueError: cannot read …/secret.bin"
    assert found["dies"]["reason"] == "its process ended: SIGKILL"
    assert found["skips"]["reason"] == "there is nothing to see here"


def test_one_that_hangs_is_ended(tmp_path: Path) -> None:
    assert gpu_check.main(["--device", "cpu", "--out", str(tmp_path)], made_up(hangs, limit_s=0.1)) == 1

    assert record(tmp_path)["hangs"]["reason"] == "not done after 0.1 s"


def test_what_a_check_has_started_ends_with_it(tmp_path: Path) -> None:
    assert gpu_check.main(["--device", "cpu", "--out", str(tmp_path)], made_up(leaves_a_child)) == 0

    facts: Any = record(tmp_path)["leaves_a_child"]["facts"]
    with suppress(ProcessLookupError):
        ended = os.pidfd_open(int(facts["child"]))
        assert select.select([ended], [], [], PATIENCE_S)[0]
        os.close(ended)


def test_for_cuda_processes_are_new_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--device", "cuda", "--out", str(tmp_path)], made_up(passes, dies)) == 1

    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 1 failed, 0 skipped"
    (path,) = tmp_path.iterdir()
    assert re.fullmatch(r"gpu_check-made-up-\d{4}-\d\d-\d\d\.json", path.name)


def test_what_cannot_begin_in_time_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--device", "cpu", "--budget-s", "0", "--out", str(tmp_path)], made_up(passes)) == 0

    assert capsys.readouterr().out.splitlines()[-1] == "0 passed, 0 failed, 1 skipped"


@pytest.fixture
def bare_python(tmp_path: Path) -> dict[str, str]:
    """The environment of a Python in which only those are installed, with what they need; all others are not found."""
    installed = {_canonical(each.name): each for each in metadata.distributions()}
    kept: set[str] = set()
    left = [*NEEDED, *FOR_TESTS]
    while left:
        name = left.pop()
        if name in installed and name not in kept:
            kept.add(name)
            left += _requirements(installed[name])
    modules = metadata.packages_distributions()
    absent = sorted(module for module, names in modules.items() if not kept & {_canonical(name) for name in names})
    assert {"fastapi", "structlog", "openslide", "cv2", "tifffile", "peft", "accelerate"} <= set(absent)
    (tmp_path / "sitecustomize.py").write_text(BARE_PYTHON.format(kept=sorted(kept), absent=absent))
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def _requirements(distribution: metadata.Distribution) -> list[str]:
    """What it needs without any extra."""
    needed = [Requirement(text) for text in distribution.requires or []]
    return [_canonical(each.name) for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def test_the_small_run_passes_on_a_cpu_and_needs_nothing_else(bare_python: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--device", "cpu", "--small", "--out", str(tmp_path)]

    ran = subprocess.run(command, cwd=ROOT, env=bare_python, capture_output=True, text=True)

    expected = {check.name: "passed" for check in SUITE.checks} | {"tile_float8": "skipped", "marked_tests": "skipped"}
    if shutil.which("g++") is None:
        expected["tile_compile"] = "skipped"
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = record(tmp_path)
    assert {name: outcome["state"] for name, outcome in found.items()} == expected
    skipped = list(expected.values()).count("skipped")
    assert ran.stdout.splitlines()[-1] == f"{len(expected) - skipped} passed, 0 failed, {skipped} skipped"
    assert "they need a GPU" in str(found["marked_tests"]["reason"])
    assert "compute capability 8.9" in str(found["tile_float8"]["reason"])
    assert str(ROOT) not in json.dumps(found)


def test_the_page_and_make_know_every_check_and_option() -> None:
    page = (ROOT / "docs" / "gpu.md").read_text()
    pinned = re.findall(r'"([a-z0-9]+[=><][^"]+)"', page)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = [*project["project"]["optional-dependencies"].values(), *project["dependency-groups"].values()]
    asked_for = {*project["project"]["dependencies"], *(each for group in groups for each in group)}
    made = subprocess.run(
        [
            "make",
            "--no-print-directory",
            "-n",
            "gpu-check",
            "SMALL=1",
            "DEVICE=cpu",
            "ONLY=ceilings tile_speed",
            "GPU_PYTHON=some/python",
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()

    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == [check.name for check in SUITE.checks]
    assert {re.split(r"\W", each)[0] for each in pinned} >= set(NEEDED)
    assert set(pinned) <= asked_for
    assert made[:3] == ["some/python", "-m", "benchmarks.gpu_check"]
    options = gpu_check._parser(SUITE).parse_args(made[3:])
    assert (options.small, options.device, options.only) == (True, "cpu", ["ceilings", "tile_speed"])


def test_a_device_that_is_not_there_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--device", "cpu", "--out", str(tmp_path)], made_up(passes, device=skips)) == 2

    assert capsys.readouterr().err == "there is nothing to see here\n"
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_is_none_never_holds() -> None:
    assert not Number(name="lost", value=float("nan")).holds
    assert not Number(name="lost", value=float("nan"), at_most=1).holds
    assert Number(name="shown", value=0.1, target=0.75).holds


def test_outcomes_come_back_as_they_were_written() -> None:
    outcome = Outcome(check="c", state="failed", took_s=1, numbers=(Number(name="n", value=float("inf"), at_most=1),))

    assert Outcome.model_validate_json(outcome.model_dump_json()) == outcome


def test_folders_are_cut_off() -> None:
    assert without_paths("no '/home/a/b/c.bin', nor /x, but 1/2 of a") == "no '…/c.bin', nor /x, but 1/2 of a"


def test_shares_of_a_trace() -> None:
    spans = [
        Span("Memcpy HtoD (Pinned -> Device)", 0, 2),
        Span("sm90_xmma_gemm_f16f16", 2, 7),
        Span("triton_tem_fused_addmm_3", 7, 8),
        Span("Memcpy HtoD (Pinned -> Device)", 3, 4),
        Span("fmha_cutlassF_f16_aligned", 8, 9),
        Span("Memcpy HtoD (Pinned -> Device)", 9.2, 9.8),
        Span("triton_red_fused_add_mm_native_layer_norm_0", 10, 12),
        Span("Memcpy DtoH (Device -> Pinned)", 12, 13),
    ]

    found = shares(spans)

    assert found["matrix products"] == pytest.approx(0.6)
    assert found["attention"] == pytest.approx(0.1)
    assert found["everything else"] == pytest.approx(0.2)
    assert idle_share(spans) == pytest.approx(0.1)
    assert overlapped_share(spans) == 0.5


def test_a_grid_that_divides_as_cuda_does_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.gpu_check import position_grid

    def by_reciprocal(coords: Tensor, stride: float, cells: int) -> Tensor:
        found = torch.floor(coords.float() * torch.tensor(1 / stride)).long()
        return found[:, 0] * cells + found[:, 1]

    monkeypatch.setattr(position_grid, "grid_index", by_reciprocal)

    wrong, strides = position_grid.check(Setting("cpu", small=True, scratch=Path())).numbers
    assert not wrong.holds
    assert 0 < wrong.value < strides.value


def test_an_encoder_that_is_off_in_one_dtype_is_found_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from benchmarks.gpu_check import tile_parity

    encode = TileEncoder.encode

    def off_in_float16(encoder: TileEncoder, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        features = encode(encoder, tiles)
        return np.roll(features, 1, axis=0) if encoder._spec.dtype == "float16" else features

    monkeypatch.setattr(TileEncoder, "encode", off_in_float16)

    numbers = tile_parity.check(Setting("cpu", small=True, scratch=tmp_path)).numbers
    assert {number.name.split(",")[0]: number.holds for number in numbers} == {
        "float32 as served": True,
        "float32": True,
        "float16": False,
        "bfloat16": True,
    }


def event(name: str, device: str = "CUDA", *, is_named: bool = False) -> FunctionEvent:
    device_type = getattr(DeviceType, device)
    return FunctionEvent(1, name, 1, 10.0, 30.0, device_type=device_type, is_user_annotation=is_named)


def test_spans_are_what_ran_on_the_device_and_nothing_else() -> None:
    events = [
        event("aten::mm", "CPU"),
        event("sm90_xmma_gemm_f16f16"),
        event("Torch-Compiled Region: 0/0", is_named=True),
        event("Stream Wait Event"),
    ]

    assert device_spans(events) == [Span("sm90_xmma_gemm_f16f16", 10, 30)]
    with pytest.raises(RuntimeError, match="saw no kernel"):
        device_spans(events[:1])


def speed(reached: float, **others: float) -> list[Outcome]:
    numbers = [Number(name=REACHED, value=reached, target=0.75)]
    numbers += [Number(name=name, value=value) for name, value in others.items()]
    return [Outcome(check="tile_speed", state="passed", took_s=1, numbers=tuple(numbers))]


def test_the_gap_names_the_largest_loss_first() -> None:
    others = {PRODUCTS_ALONE: 0.9, DEVICE_IDLE: 0.25, time_in("everything else"): 0.12, COMPILING: 1.01}

    lines = explain_gap(speed(0.5, **others))

    assert lines[0] == "The tile encoder reaches 50% of what this device multiplies; the target is 75%."
    assert lines[1].endswith("40% are lost beside them.")
    assert "1.01 times" in lines[3]
    assert [line.split(":")[0].strip() for line in lines[4:]] == ["25%", "12%", "10%"]


def test_a_target_that_is_met_needs_no_hint() -> None:
    assert len(explain_gap(speed(0.8))) == 1
    assert explain_gap([]) == []
