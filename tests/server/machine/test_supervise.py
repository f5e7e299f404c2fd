"""The supervisor with real processes: restarts, crash loops, clean stops, and nothing left behind."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from supervised import BECOME_READY, FOREVER, PATIENCE_S, QUICK, SAY_PID, Changes, component, stop_ourselves

from server.machine.supervise import Change, Component, ComponentError, RunningComponent, Supervisor, last_lines


def wait_until_gone(pid: int) -> None:
    """Returns when the process has ended, reaped or not."""
    deadline = time.monotonic() + PATIENCE_S
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the process is still there"
        time.sleep(0.01)


def test_children_start_in_order_and_stop_in_reverse_order(tmp_path: Path) -> None:
    changes = Changes()

    with Supervisor(changes) as supervisor:
        for name in ("first", "second"):
            supervisor.start(component(tmp_path, name, BECOME_READY + FOREVER))
            assert supervisor.wait_until_ready([name], PATIENCE_S)

    started = ["first starting", "first ready", "second starting", "second ready"]
    assert changes.story == [*started, "second stopped", "first stopped"]


def test_a_killed_child_is_started_again_until_a_signal_ends_the_run(tmp_path: Path) -> None:
    victim = component(tmp_path, "victim", SAY_PID + BECOME_READY + FOREVER)

    def kill_it_once(change: Change) -> None:
        if change.state != "ready":
            return
        if changes.story.count("victim ready") == 1:
            os.kill(int(victim.log.read_text()), signal.SIGKILL)
        else:
            stop_ourselves()

    changes = Changes(kill_it_once)

    with Supervisor(changes, QUICK) as supervisor:
        supervisor.start(victim)
        supervisor.run()

    again = ["victim starting", "victim ready"]
    assert changes.story == [*again, "victim exited", *again, "victim stopped"]
    assert changes.details("exited") == ["killed by SIGKILL, again in 0.01 s"]


def leaving_behind(script: str) -> str:
    """A component that starts a process with this script, says its pid when it is up, and is ready then."""
    leave = f"""import subprocess, sys
left = subprocess.Popen([sys.executable, "-c", {script!r}], stdout=subprocess.PIPE)
left.stdout.readline()
print(left.pid, flush=True)
"""
    return SAY_PID + leave + BECOME_READY + FOREVER


IGNORE_REQUESTS = "import signal, time; signal.signal(15, signal.SIG_IGN)\nprint('up', flush=True)\n" + FOREVER


def restarted_after_a_kill(victim: Component, at_restart: Callable[[], None] = lambda: None) -> list[int]:
    """The pids that the component said before it was killed, when it is ready again."""
    said: list[int] = []

    def kill_it_once(change: Change) -> None:
        if change.state == "ready" and not said:
            said.extend(int(pid) for pid in victim.log.read_text().split())
            os.kill(said[0], signal.SIGKILL)
        elif change.state == "ready":
            stop_ourselves()
        elif change.state == "starting" and said:
            at_restart()

    with Supervisor(Changes(kill_it_once), QUICK) as supervisor:
        supervisor.start(victim)
        supervisor.run()
    return said


def test_what_a_killed_child_leaves_behind_may_tidy_up_before_the_next_start(tmp_path: Path) -> None:
    tidy, seen = tmp_path / "tidy", []
    script = f"""import pathlib, signal, sys, time
signal.signal(15, lambda *_: (time.sleep(0.2), pathlib.Path({str(tidy)!r}).touch(), sys.exit(0)))
print("up", flush=True)
"""
    victim = component(tmp_path, "victim", leaving_behind(script + FOREVER))

    said = restarted_after_a_kill(victim, at_restart=lambda: seen.append(tidy.exists()))

    assert seen == [True]
    wait_until_gone(said[1])


def test_what_does_not_go_is_killed_before_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.machine.supervise.LEFTOVERS_S", 0.1)

    said = restarted_after_a_kill(component(tmp_path, "victim", leaving_behind(IGNORE_REQUESTS)))

    wait_until_gone(said[1])


def test_what_a_dead_child_has_left_behind_ends_with_the_supervisor(tmp_path: Path) -> None:
    victim = component(tmp_path, "victim", leaving_behind(IGNORE_REQUESTS))
    said: list[int] = []

    def kill_it(change: Change) -> None:
        if change.state == "ready":
            said.extend(int(pid) for pid in victim.log.read_text().split())
            os.kill(said[0], signal.SIGKILL)
        elif change.state == "exited":
            stop_ourselves()

    with Supervisor(Changes(kill_it), QUICK) as supervisor:
        supervisor.start(victim)
        supervisor.run()

    wait_until_gone(said[1])


def test_delays_grow_to_the_longest_and_a_crash_loop_shows_the_end_of_the_log(tmp_path: Path) -> None:
    go = tmp_path / "go"
    wait_for_go = f"import pathlib, time\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)\n"
    flaky = component(tmp_path, "flaky", BECOME_READY + wait_for_go + "print('no luck'); sys.exit(3)")
    changes = Changes(lambda change: stop_ourselves() if change.state == "crash loop" else None)

    with Supervisor(changes, QUICK) as supervisor:
        supervisor.start(flaky)
        assert supervisor.wait_until_ready(["flaky"], PATIENCE_S)
        go.touch()
        supervisor.run()

    assert changes.details("exited") == [f"exit code 3, again in {delay} s" for delay in ("0.01", "0.02", "0.03")]
    assert "no luck" in changes.details("crash loop")[0]


def test_a_child_that_never_gets_ready_ends_the_start_with_the_end_of_its_log(tmp_path: Path) -> None:
    hopeless = component(tmp_path, "hopeless", "import sys; print('cannot open the model'); sys.exit(1)")

    with Supervisor(Changes(), QUICK) as supervisor:
        supervisor.start(hopeless)
        with pytest.raises(ComponentError, match=r"hopeless exited 3 times(.|\n)*cannot open the model"):
            supervisor.wait_until_ready(["hopeless"], PATIENCE_S)


def test_a_child_that_refuses_its_arguments_is_not_started_again(tmp_path: Path) -> None:
    refusing = component(tmp_path, "refusing", "import sys; print('no such model'); sys.exit(2)")
    changes = Changes()

    with Supervisor(changes, QUICK) as supervisor:
        supervisor.start(refusing)
        with pytest.raises(ComponentError, match="refuses to start"):
            supervisor.wait_until_ready(["refusing"], PATIENCE_S)

    assert changes.story.count("refusing starting") == 1


def test_a_child_that_is_not_ready_in_time_ends_the_start(tmp_path: Path) -> None:
    slow = component(tmp_path, "slow", FOREVER)

    with Supervisor(Changes()) as supervisor:
        supervisor.start(slow)
        with pytest.raises(ComponentError, match="was not ready within 0 s"):
            supervisor.wait_until_ready(["slow"], timeout_s=0)


def test_a_signal_ends_the_wait_for_readiness(tmp_path: Path) -> None:
    slow = component(tmp_path, "slow", FOREVER)

    with Supervisor(Changes(lambda change: stop_ourselves() if change.state == "starting" else None)) as supervisor:
        supervisor.start(slow)
        assert not supervisor.wait_until_ready(["slow"], PATIENCE_S)


def test_a_child_is_asked_to_stop_before_it_is_killed(tmp_path: Path) -> None:
    say_goodbye = "import signal, sys; signal.signal(15, lambda *_: (print('goodbye', flush=True), sys.exit(0)))\n"
    polite = component(tmp_path, "polite", say_goodbye + BECOME_READY + FOREVER)

    with Supervisor(Changes()) as supervisor:
        supervisor.start(polite)
        assert supervisor.wait_until_ready(["polite"], PATIENCE_S)

    assert polite.log.read_text() == "goodbye\n"


def test_a_child_that_ignores_the_request_is_killed_with_what_it_started(tmp_path: Path) -> None:
    ignore = "import signal; signal.signal(15, signal.SIG_IGN)\n"
    have_a_child = "import subprocess, sys; print(subprocess.Popen(['sleep', '3600']).pid, flush=True)\n"
    script = ignore + SAY_PID + have_a_child + BECOME_READY + FOREVER
    stubborn = component(tmp_path, "stubborn", script, stop_grace_s=0.1)

    with Supervisor(Changes()) as supervisor:
        supervisor.start(stubborn)
        assert supervisor.wait_until_ready(["stubborn"], PATIENCE_S)

    for pid in stubborn.log.read_text().split():
        wait_until_gone(int(pid))


def test_a_second_signal_cuts_the_grace_short(tmp_path: Path) -> None:
    send_another = f"import signal, os; signal.signal(15, lambda *_: os.kill({os.getpid()}, 15))\n"
    stubborn = component(tmp_path, "stubborn", send_another + BECOME_READY + FOREVER, stop_grace_s=3600)

    with Supervisor(Changes()) as supervisor:
        supervisor.start(stubborn)
        assert supervisor.wait_until_ready(["stubborn"], PATIENCE_S)
        stop_ourselves()
        supervisor.run()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's end")
def test_children_do_not_outlive_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    program = f"""
import os, sys
from pathlib import Path
from server.machine.supervise import Component, Supervisor
command = (sys.executable, "-c", {SAY_PID + FOREVER!r})
log = Path({str(tmp_path / "child.log")!r})
with Supervisor(lambda change: None) as supervisor:
    supervisor.start(Component("child", command, dict(os.environ), log, lambda: log.read_text().endswith("\\n")))
    supervisor.wait_until_ready(["child"], {PATIENCE_S})
    print("ready", flush=True)
    supervisor.run()
"""
    supervisor = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert supervisor.stdout is not None
    assert supervisor.stdout.readline() == b"ready\n"

    supervisor.kill()
    supervisor.communicate()

    wait_until_gone(int((tmp_path / "child.log").read_text()))


def test_signal_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)

    with Supervisor(Changes()):
        assert signal.getsignal(signal.SIGTERM) != before

    assert signal.getsignal(signal.SIGTERM) == before


def test_a_log_is_private_and_its_tail_is_its_last_lines(tmp_path: Path) -> None:
    count = "for n in range(100): print('line', n, flush=True)\n"
    chatty = component(tmp_path, "chatty", count + BECOME_READY + FOREVER)

    with Supervisor(Changes()) as supervisor:
        supervisor.start(chatty)
        assert supervisor.wait_until_ready(["chatty"], PATIENCE_S)

    assert stat.S_IMODE(chatty.log.stat().st_mode) == 0o600
    assert last_lines(chatty.log).split("\n")[0] == "    line 88"
    assert last_lines(tmp_path / "never-written.log") == ""


def test_what_is_supervised_can_be_seen(tmp_path: Path) -> None:
    victim = component(tmp_path, "victim", SAY_PID + BECOME_READY + FOREVER)
    seen: list[RunningComponent] = []

    def look(change: Change) -> None:
        seen.extend(supervisor.components())
        if change.state == "ready" and changes.story.count("victim ready") == 1:
            os.kill(int(victim.log.read_text()), signal.SIGKILL)
        elif change.state == "ready":
            stop_ourselves()

    changes = Changes(look)
    before_s = time.time()
    with Supervisor(changes, QUICK) as supervisor:
        supervisor.start(victim)
        supervisor.run()

    assert [it.state for it in seen] == ["starting", "ready", "exited", "starting", "ready", "stopped"]
    assert [it.restarts for it in seen] == [0, 0, 0, 1, 1, 1]
    assert [it.pid is None for it in seen] == [False, False, True, False, False, True]
    assert before_s <= seen[0].started_at_epoch_s < seen[-1].started_at_epoch_s <= time.time()
    assert seen[2].detail == "killed by SIGKILL, again in 0.01 s"
