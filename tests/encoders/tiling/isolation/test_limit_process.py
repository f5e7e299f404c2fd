"""Each test limits a Python of its own and lets it try what must fail."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PREAMBLE = """
import json, os, sys
from encoders.tiling.isolation.limit_process import limit_process
from encoders.tiling.isolation.reader_limits import ReaderLimits
degraded = limit_process(ReaderLimits(memory_bytes={memory_bytes}, cpu_s={cpu_s}), {parent})
"""


def run_limited(
    body: str, *, memory_bytes: int = 2**30, cpu_s: int = 60, parent: int | None = None
) -> subprocess.CompletedProcess[str]:
    preamble = PREAMBLE.format(memory_bytes=memory_bytes, cpu_s=cpu_s, parent=parent or os.getpid())
    return subprocess.run(
        [sys.executable, "-c", preamble + textwrap.dedent(body)], capture_output=True, text=True, timeout=60
    )


def test_memory_beyond_the_limit_is_refused() -> None:
    result = run_limited("try: bytearray(400 * 2**20)\nexcept MemoryError: print('refused')", memory_bytes=300 * 2**20)

    assert result.stdout.strip() == "refused"


def test_cpu_time_beyond_the_limit_kills() -> None:
    result = run_limited("while True: pass", cpu_s=1)

    assert result.returncode < 0


def test_nothing_can_be_written_to_a_file(tmp_path: Path) -> None:
    target = tmp_path / "written"

    result = run_limited(f"""
        try: open({str(target)!r}, "wb", buffering=0).write(b"x")
        except OSError: print("refused")
        """)

    assert result.stdout.strip() == "refused"


def test_a_listening_socket_cannot_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = run_limited(f"""
            import socket
            if any("network" in sentence for sentence in degraded):
                print("not cut off")
            else:
                try: socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), timeout=5)
                except OSError: print("refused")
            """)

    if result.stdout.strip() == "not cut off":
        pytest.skip("this platform lets no process leave its network")
    assert result.stdout.strip() == "refused"


def test_capabilities_and_new_privileges_are_gone() -> None:
    result = run_limited("""
        if degraded: print("degraded", degraded)
        else: print([line.split()[1] for line in open("/proc/self/status") if line[:6] in ("CapEff", "NoNewP")])
        """)

    if result.stdout.startswith("degraded"):
        pytest.skip(result.stdout)
    assert result.stdout.strip() == "['0000000000000000', '1']"


def test_a_process_whose_parent_is_gone_does_not_go_on() -> None:
    result = run_limited("print('went on')", parent=1)

    assert (result.stdout, result.returncode) == ("", 1)


def test_what_the_platform_refuses_is_said_in_a_sentence() -> None:
    result = run_limited("""
        from encoders.tiling.isolation import limit_process as module
        module._CLONE_NEWUSER = module._CLONE_NEWNET = 1  # no namespace: unshare refuses it everywhere
        print(json.dumps(module.limit_process(ReaderLimits(), os.getppid())))
        """)

    assert "The reader is not cut off from the network." in result.stdout
