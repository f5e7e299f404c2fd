"""Logs that change files while they are written: nothing is lost, nothing is torn, and there is an end to it."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from server.machine.component_log import ComponentLog
from server.machine.supervise import Component, Supervisor

FILE_BYTES = 200_000


def lines_of(log: Path) -> list[bytes]:
    """Every line in the order of writing; each file ends at the end of a line."""
    older = sorted(log.parent.glob(f"{log.name}.*"), key=lambda path: -int(path.suffix[1:]))
    texts = [path.read_bytes() for path in (*older, log)]
    assert all(text.endswith(b"\n") for text in texts)
    return b"".join(texts).splitlines()


def print_into(log: ComponentLog, *parts: bytes) -> None:
    """As a process would, part by part."""
    pipe = log.open_pipe()
    for part in parts:
        os.write(pipe, part)
        log.catch_up()
    os.close(pipe)


def test_no_line_of_a_process_and_its_children_is_lost_or_torn_while_files_change(tmp_path: Path) -> None:
    count = "import os\nfor n in range(5000): os.write(1, b'%s %d %s\\n' % (NAME, n, b'x' * (n % 97)))"
    inner = count.replace("NAME", "b'grandchild'")
    outer = f"import subprocess, sys, pathlib\nchild = subprocess.Popen([sys.executable, '-c', {inner!r}])\n"
    outer += count.replace("NAME", "b'child'") + "\nchild.wait()\npathlib.Path(sys.argv[1]).touch()\n"
    outer += "import time\nwhile True: time.sleep(60)"
    done, path = tmp_path / "done", tmp_path / "chatty.log"
    component = Component("chatty", (sys.executable, "-c", outer, str(done)), dict(os.environ), path, done.exists)

    with pytest.MonkeyPatch.context() as patch, Supervisor(lambda change: None) as supervisor:
        patch.setattr(
            "server.machine.supervise.ComponentLog", lambda path: ComponentLog(path, FILE_BYTES, older_files=9)
        )
        supervisor.start(component)
        assert supervisor.wait_until_ready(["chatty"], 60)

    lines = lines_of(path)
    assert len(list(tmp_path.glob("chatty.log.*"))) >= 2
    for name in (b"child", b"grandchild"):
        assert [line for line in lines if line.split()[0] == name] == [
            (b"%s %d %s" % (name, n, b"x" * (n % 97))) for n in range(5000)
        ]


def test_there_are_so_many_files_and_no_more(tmp_path: Path) -> None:
    log = ComponentLog(tmp_path / "api.log", file_bytes=1000, older_files=2)

    print_into(log, *(b"%03d %s\n" % (number, b"x" * 95) for number in range(100)))

    assert sorted(path.name for path in tmp_path.iterdir()) == ["api.log", "api.log.1", "api.log.2"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())
    assert [int(line[:3]) for line in lines_of(log.path)] == list(range(70, 100))


def test_a_line_that_comes_in_parts_stays_whole(tmp_path: Path) -> None:
    log = ComponentLog(tmp_path / "api.log", file_bytes=10)

    print_into(log, b"the first half, ", b"the second\nnext", b" line\n")

    assert (tmp_path / "api.log.1").read_bytes() == b"the first half, the second\n"
    assert log.path.read_bytes() == b"next line\n"


def test_a_line_without_an_end_does_not_fill_the_disk(tmp_path: Path) -> None:
    log = ComponentLog(tmp_path / "api.log", file_bytes=1000, older_files=1)

    print_into(log, *[b"x" * 500] * 50)

    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * 2500


def test_a_log_goes_on_behind_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "api.log").write_bytes(b"before, cut o")

    print_into(ComponentLog(tmp_path / "api.log", file_bytes=5), b"ff\n", b"after\n")

    assert lines_of(tmp_path / "api.log") == [b"before, cut off", b"after"]


def test_what_cannot_be_written_stops_nobody_and_is_said_afterwards(tmp_path: Path) -> None:
    log = ComponentLog(tmp_path / "folder" / "api.log")
    pipe = log.open_pipe()

    os.write(pipe, b"lost\n")
    log.catch_up()
    (tmp_path / "folder").mkdir()
    os.write(pipe, b"kept\n")
    log.catch_up()
    os.close(pipe)

    assert lines_of(log.path) == [b"... about 5 bytes of this log could not be written", b"kept"]


def test_a_log_that_was_moved_away_begins_anew(tmp_path: Path) -> None:
    log = ComponentLog(tmp_path / "api.log")
    pipe = log.open_pipe()
    os.write(pipe, b"one\n")
    log.catch_up()
    log.path.rename(tmp_path / "kept")
    os.write(pipe, b"two\n")
    log.catch_up()
    os.close(pipe)

    assert (tmp_path / "kept").read_bytes() == b"one\n"
    assert log.path.read_bytes() == b"two\n"


def test_its_thread_ends_with_the_last_process_that_prints(tmp_path: Path) -> None:
    log, others = ComponentLog(tmp_path / "api.log"), set(threading.enumerate())
    pipe = log.open_pipe()
    (thread,) = set(threading.enumerate()) - others
    assert thread.name == "log-api"
    subprocess.run(["echo", "hello"], stdout=pipe, check=True)
    assert thread.is_alive()

    os.close(pipe)
    thread.join(60)

    assert not thread.is_alive()
    assert log.path.read_bytes() == b"hello\n"
