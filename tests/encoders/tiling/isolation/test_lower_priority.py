"""How far readers stand back behind whoever started them."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from encoders.tiling.isolation.lower_priority import lower_priority
from encoders.tiling.isolation.reader_process import ReaderLimits, ReaderProcess

AUTOGROUP = Path("/proc/self/autogroup")


def niceness(pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


def test_a_reader_stands_back_as_far_as_it_is_told(sample_slide: Path) -> None:
    limits = ReaderLimits(deadline_s=60)
    with ReaderProcess(sample_slide, limits) as first, ReaderProcess(sample_slide, replace(limits, niceness=7)) as last:
        assert first.pid is not None
        assert last.pid is not None
        assert (niceness(first.pid), niceness(last.pid)) == (niceness(0), min(19, niceness(0) + 7))


def test_it_goes_to_the_end_of_the_scale_and_no_further() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    lower_priority(process.pid, 100)
    assert niceness(process.pid) == 19
    process.communicate(b"")


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="this kernel knows no autogroups")
def test_a_session_of_its_own_stands_back_too() -> None:
    """Else its niceness would count among its own processes only."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    lower_priority(process.pid, 7)
    assert Path(f"/proc/{process.pid}/autogroup").read_text().split()[-1] == str(min(19, niceness(0) + 7))
    process.communicate(b"")


def test_a_process_that_is_gone_is_nobodys_error() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    lower_priority(process.pid, 5)
