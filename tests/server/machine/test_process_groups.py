"""A process group ends whole, and the shared memory of the dead is gone with it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from server.machine.process_groups import end_group

# Its child ignores SIGTERM and, like a vLLM engine, has the resource tracker's pipe open.
WITH_SHARED_MEMORY = """
import multiprocessing, signal, sys, time
from multiprocessing.shared_memory import SharedMemory
def hang():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("up", flush=True)
    while True: time.sleep(60)
memory = SharedMemory(create=True, size=4096)
print(memory.name, flush=True)
multiprocessing.get_context("fork").Process(target=hang).start()
while True: time.sleep(60)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
"multiprocessing.resource_tracker"
print("up", flush=True)
while True: time.sleep(60)
"""


def started(script: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", script]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="shared memory has no folder here")
def test_shared_memory_of_a_killed_process_goes_with_its_group() -> None:
    with started(WITH_SHARED_MEMORY) as leader:
        memory = Path("/dev/shm", said(leader))
        assert said(leader) == "up"
        assert memory.exists()
        leader.kill()
        leader.wait()

        end_group(leader.pid)

        assert not memory.exists()


def test_a_tracker_that_does_not_end_is_killed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.machine.process_groups._TRACKERS_END_WITHIN_S", 0.1)
    with started(STUBBORN) as leader:
        assert said(leader) == "up"

        end_group(leader.pid)

        assert leader.wait() == -signal.SIGKILL


def test_nobody_outside_the_group_is_touched() -> None:
    with started(STUBBORN) as other, started("print('up', flush=True); import time; time.sleep(60)") as leader:
        assert (said(other), said(leader)) == ("up", "up")

        end_group(leader.pid)

        assert leader.wait() == -signal.SIGKILL
        assert other.poll() is None
        os.kill(other.pid, signal.SIGKILL)


def test_a_group_that_is_gone_is_no_error() -> None:
    with started("pass") as leader:
        assert leader.wait() == 0

    end_group(leader.pid)
