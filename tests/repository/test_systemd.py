"""deploy/systemd/eyepiece.service: systemd understands it, it starts what exists, and the reader keeps its limits."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from command_lines import parse_command_line

from server.commands.demo import STOP_GRACE_S
from server.commands.outcome import ExitCode
from server.commands.up import READY_TIMEOUT_S
from server.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
UNIT = (ROOT / "deploy" / "systemd" / "eyepiece.service").read_text()
LLM_UNIT = (ROOT / "deploy" / "systemd" / "eyepiece-llm@.service").read_text()
RUNBOOK = (ROOT / "docs" / "operations.md").read_text()


def said(name: str) -> list[str]:
    """Every value of a directive."""
    return re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)


def minutes(name: str) -> float:
    """A time span of one unit."""
    (value,) = said(name)
    return float(value.removesuffix("min"))


def test_a_vllm_of_its_own_is_shut_in_as_the_rest(tmp_path: Path) -> None:
    (start,) = re.findall(r"^ExecStart=(.*)$", LLM_UNIT, re.MULTILINE)
    parse_command_line(shlex.split(start.replace("%i", "8111"))[1:])

    ours, theirs = (
        set(re.findall(r"^\w+=.*$", it.partition("# What none")[2], re.MULTILINE)) for it in (UNIT, LLM_UNIT)
    )
    assert ours - theirs == {"RestrictNamespaces=user mnt ipc net"}
    assert theirs - ours == {"RestrictNamespaces=yes"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", ["eyepiece.service", "eyepiece-llm@8111.service"])
@pytest.mark.parametrize("breaks", ["", "ProtectSystem=stricter\n"])
def test_systemd_understands_every_line(tmp_path: Path, name: str, breaks: str) -> None:
    program = tmp_path / "eyepiece"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit, text = tmp_path / name, UNIT if name == "eyepiece.service" else LLM_UNIT
    here = text.replace("/opt/eyepiece/.venv/bin/eyepiece", str(program)).replace("[Install]", f"{breaks}[Install]")
    unit.write_text(here)

    ran = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)], capture_output=True, text=True
    )

    about_us = [line for line in ran.stderr.splitlines() if name in line]
    assert bool(about_us) is bool(breaks), ran.stderr
    assert breaks or ran.returncode == 0, ran.stderr


def test_it_starts_a_command_that_exists_in_a_folder_that_it_may_write() -> None:
    (start,) = said("ExecStart")
    program, *arguments = shlex.split(start)

    parse_command_line(arguments)
    assert program.endswith("/bin/eyepiece")
    assert arguments[0] == "up"
    data_dir = arguments[arguments.index("--data-dir") + 1]
    assert [data_dir] == [f"/var/lib/{name}" for name in said("StateDirectory")] == said("WorkingDirectory")
    assert said("StateDirectoryMode") == ["0700"]


def test_it_is_given_the_time_that_it_needs() -> None:
    settings = Settings()

    assert minutes("TimeoutStartSec") * 60 > READY_TIMEOUT_S
    assert minutes("TimeoutStopSec") * 60 > STOP_GRACE_S > 2 * settings.shutdown_grace_s
    assert said("KillMode") == ["mixed"]
    assert said("OOMPolicy") == ["continue"]
    assert said("RestartPreventExitStatus") == [str(int(ExitCode.USAGE))]


def test_the_reader_can_shut_itself_in() -> None:
    (namespaces,) = said("RestrictNamespaces")

    assert set(namespaces.split()) == {"user", "mnt", "ipc", "net"}
    assert not said("MemoryDenyWriteExecute")
    assert not said("PrivateUsers")
    (filtered,) = said("SystemCallFilter")
    assert filtered.startswith("~"), "a list of what is forbidden"
    assert not {"@mount", "@sandbox", "@process", "@privileged"} & set(filtered[1:].split())


def test_nothing_of_it_runs_as_root_or_may_become_it() -> None:
    assert said("User") == ["eyepiece"]
    assert said("NoNewPrivileges") == ["yes"]
    assert said("CapabilityBoundingSet") == [""]
    assert said("ProtectSystem") == ["strict"]


def test_the_runbook_says_how_to_install_it() -> None:
    assert "deploy/systemd/eyepiece.service" in RUNBOOK
    assert "--data-dir /var/lib/eyepiece" in RUNBOOK
