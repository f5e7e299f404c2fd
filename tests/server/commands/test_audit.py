"""`eyepiece audit`, over the lines that `eyepiece keys` writes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from server.__main__ import app
from server.commands.outcome import CommandError, ExitCode


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EYEPIECE_AUDIT_DIR", str(tmp_path / "audit"))
    monkeypatch.setenv("EYEPIECE_DATA_DIR", str(tmp_path))
    return tmp_path / "audit"


def eyepiece(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def refused(result: Result) -> CommandError:
    assert isinstance(result.exception, CommandError)
    return result.exception


def test_keys_are_in_the_log_and_an_auditor_gets_those_of_a_tenant(folder: Path) -> None:
    key = eyepiece("keys", "create", "--tenant", "a").stdout.strip()
    eyepiece("keys", "create", "--tenant", "b")
    eyepiece("keys", "list")
    eyepiece("keys", "revoke", key)

    told = json.loads(eyepiece("audit", "verify", "--json").stdout)
    assert (told["ok"], told["writers"], told["open_ends"], told["lines"]) == (True, 4, 0, 16)
    lines = [json.loads(line) for line in eyepiece("audit", "export", "--tenant", "a").stdout.splitlines()]
    assert {(it["action"], it["phase"]) for it in lines} == {
        (action, phase) for action in ("keys create", "keys revoke") for phase in ("begun", "done")
    }
    assert [it["about"] for it in lines if it["phase"] == "done"] == [{"key": key[:10]}] * 2
    events = [json.loads(line) for line in eyepiece("audit", "export", "--format", "fhir").stdout.splitlines()]
    assert [it["resourceType"] for it in events] == ["AuditEvent"] * 4
    assert key[:11] not in "".join(path.read_text() for path in folder.iterdir())


def test_a_log_that_was_changed_is_told_and_ends_with_1(folder: Path) -> None:
    eyepiece("keys", "create", "--tenant", "a")
    (path,) = folder.glob("*.jsonl")
    path.write_text(path.read_text().replace('"tenant":"a"', '"tenant":"b"', 1))

    for command in (("audit", "verify"), ("audit", "export")):
        ran = eyepiece(*command)
        assert refused(ran).exit_code is ExitCode.FAILED
        assert f"{path.name}, line 2: it was changed" in ran.stderr
    assert json.loads(eyepiece("audit", "verify", "--json").stdout)["ok"] is False


def test_no_key_is_made_where_it_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    folder.write_text("no folder")

    ran = eyepiece("keys", "create", "--tenant", "a")

    assert "audit log cannot be written" in str(ran.exception)
    assert not (tmp_path / "store" / "keys").exists()


def test_without_a_log_there_is_nothing_to_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EYEPIECE_AUDIT_DIR", raising=False)

    ran = eyepiece("audit", "verify", "--data-dir", str(tmp_path))
    gone = eyepiece("audit", "verify", "--audit-dir", str(tmp_path / "none"))

    assert refused(ran).exit_code is ExitCode.USAGE
    assert "EYEPIECE_AUDIT_DIR" in str(ran.exception)
    assert "There is no folder" in str(gone.exception)
