import math
from pathlib import Path

import pytest

from encoders.tiling.isolation import decode_threads
from encoders.tiling.isolation.decode_threads import decode_threads_here


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for this machine's: 2 packages of 4 cores of 2 hyperthreads, no quota."""
    for cpu in range(16):
        topology = tmp_path / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{cpu % 8 // 4}\n")
        (topology / "core_id").write_text(f"{cpu % 4}\n")
    monkeypatch.setattr(decode_threads, "_CPUS", tmp_path)
    monkeypatch.setattr(decode_threads, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(decode_threads, "_allowed_cpus", lambda: set(range(16)))
    decode_threads_here.cache_clear()
    return tmp_path


@pytest.fixture(autouse=True)
def forget() -> None:
    decode_threads_here.cache_clear()


def test_hyperthreads_count_once_and_one_core_is_left(machine: Path) -> None:
    assert decode_threads_here() == 7


@pytest.mark.parametrize(("quota", "threads"), [("max 100000", 7), ("400000 100000", 3), ("50000 100000", 1)])
def test_a_containers_quota_counts(machine: Path, quota: str, threads: int) -> None:
    (machine / "cpu.max").write_text(f"{quota}\n")

    assert decode_threads_here() == threads


def test_only_cores_that_this_process_may_use_count(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_threads, "_allowed_cpus", lambda: {0, 1, 2, 8})

    assert decode_threads_here() == 2


@pytest.mark.parametrize(("cpus", "threads"), [(1, 1), (2, 1), (200, 16)])
def test_without_a_topology_every_cpu_is_a_core(
    machine: Path, monkeypatch: pytest.MonkeyPatch, cpus: int, threads: int
) -> None:
    monkeypatch.setattr(decode_threads, "_CPUS", machine / "nothing")
    monkeypatch.setattr(decode_threads, "_allowed_cpus", lambda: set(range(cpus)))

    assert decode_threads_here() == threads


@pytest.mark.parametrize("text", ["", "max", "a b", "5 0"])
def test_a_quota_that_makes_no_sense_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "cpu.max").write_text(text)

    assert decode_threads._quota_cpus(tmp_path / "cpu.max") == math.inf


def test_this_machine_gives_a_number() -> None:
    assert 1 <= decode_threads_here() <= decode_threads.MAX_DECODE_THREADS
