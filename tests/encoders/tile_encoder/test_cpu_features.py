from pathlib import Path

import pytest
import torch

from encoders.tile_encoder.cpu_features import fit_threads_to_quota, native_cpu_dtype

ZEN_5 = "processor\t: 0\nmodel name\t: AMD EPYC 9575F\nflags\t\t: fpu avx512_bf16 sse2\n"
SAPPHIRE_RAPIDS = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) 8480+\nflags\t\t: fpu amx_bf16 amx_tile\n"
SKYLAKE = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) 6148\nflags\t\t: fpu avx512f avx512_bf16_is_not_here\n"
GRAVITON_3 = "processor\t: 0\nFeatures\t: fp asimd i8mm bf16 sve\n"


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        (ZEN_5, "bfloat16"),
        (SAPPHIRE_RAPIDS, "bfloat16"),
        (GRAVITON_3, "bfloat16"),
        (SKYLAKE, "float32"),
        ("", "float32"),
        (None, "float32"),
    ],
)
def test_bfloat16_only_where_the_cpu_multiplies_it(tmp_path: Path, text: str | None, dtype: str) -> None:
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)

    assert native_cpu_dtype(path) == dtype


@pytest.mark.parametrize(
    ("quota", "threads"),
    [("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1), ("max 100000", 4), ("900000 100000", 4)],
)
def test_threads_fit_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, threads: int) -> None:
    asked = [4]
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: asked[-1])
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    (tmp_path / "cpu.max").write_text(quota + "\n")

    fit_threads_to_quota(tmp_path / "cpu.max")
    assert asked[-1] == threads

    fit_threads_to_quota(tmp_path / "missing")
    assert asked[-1] == threads


def test_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(torch, "set_num_threads", lambda _: pytest.fail("changed"))
    (tmp_path / "cpu.max").write_text("10000 100000\n")

    fit_threads_to_quota(tmp_path / "cpu.max")
