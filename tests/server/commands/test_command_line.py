"""The command line as a person meets it: help, exit codes, and one sentence for each refusal."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from model_store.manifest import packaged_names
from server.__main__ import _run, app
from server.commands.data_folder import locked_data_folder
from server.commands.outcome import ExitCode
from server.machine.redis_server import free_loopback_port

ROOT = Path(__file__).resolve().parents[3]


def eyepiece(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with none of the caller's settings."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("EYEPIECE_")}
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        env={**own, "PYTHONSAFEPATH": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def assert_refused(ran: subprocess.CompletedProcess[str], sentence: str, code: ExitCode = ExitCode.USAGE) -> None:
    """One sentence on standard error, nothing on standard output, no traceback."""
    assert ran.returncode == code, ran.stderr
    assert ran.stderr.startswith("eyepiece: ")
    assert sentence in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert ran.stdout == ""


def command_paths() -> list[list[str]]:
    """Every command, with its group's name before it."""
    root = get_command(app)
    paths: list[list[str]] = []
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", {})
        paths += [[name, sub] for sub in below] if below else [[name]]
    return paths


@pytest.mark.parametrize("path", command_paths(), ids=" ".join)
def test_every_command_explains_itself(path: list[str]) -> None:
    shown = CliRunner().invoke(app, [*path, "--help"])

    assert shown.exit_code == 0
    assert "Usage:" in shown.output


def test_the_commands_are_those_of_the_design() -> None:
    names = {path[0] for path in command_paths()}

    client = {
        "inspect",
        "upload",
        "ask",
        "report",
        "chat",
        "slides",
        "feedback",
        "make-slide",
        "eval-demo",
        "eval-regions",
    }
    client |= {"eval-honesty", "eval-evidence", "eval-choices", "evaluate", "cohort"}
    kept = {"keys", "audit", "tenants", "models", "levels", "status", "webhooks"}
    assert names == {"up", "api", "worker", "llm", "doctor", "demo"} | kept | client


def test_help_is_shown_without_loading_anything_heavy() -> None:
    script = (
        "import sys\nsys.argv = ['eyepiece', '--help']\nfrom server.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'fastapi', 'pydantic', 'httpx', 'obstore', 'redis'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )

    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("command", "needing"),
    [
        ("levels export levels.h5 folder", "encoders.hierarchical.published_levels"),
        ("models convert wsi-llava", "encoders.expected_shapes"),
    ],
)
def test_without_torch_a_command_that_needs_it_says_what_to_install(
    command: str, needing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, needing, raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(sys, "argv", ["eyepiece", *command.split()])

    code = _run()

    assert code == ExitCode.USAGE
    assert "needs torch, which is not installed: pip install 'eyepiece[worker]'" in capsys.readouterr().err


def test_exit_codes_are_documented() -> None:
    assert "Exit codes: 0 done" in " ".join(eyepiece("--help").stdout.split())


def test_a_taken_port_is_named_with_the_way_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        for command in ("up", "api"):
            ran = eyepiece(command, "--port", port, "--data-dir", str(tmp_path / "data"))
            assert_refused(ran, f"Port {port} on 127.0.0.1: address already in use. Stop what listens")

    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("command", ["up", "api"])
def test_an_address_for_others_needs_a_key(tmp_path: Path, command: str) -> None:
    ran = eyepiece(command, "--host", "0.0.0.0", "--data-dir", str(tmp_path))

    assert_refused(ran, "no API key exists: make one with `eyepiece keys create")


def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").touch()

    ran = eyepiece("up", "--port", str(free_loopback_port()), "--data-dir", str(tmp_path / "data"))

    assert_refused(ran, "is not a folder: choose another folder with --data-dir")


def test_a_second_up_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with locked_data_folder(tmp_path / "data") as folder:
        ran = eyepiece("up", "--port", str(free_loopback_port()), "--data-dir", str(folder))

    assert_refused(ran, f"Another `eyepiece up` (process {os.getpid()}) uses")


def test_a_missing_vllm_environment_says_how_to_make_it(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere" / "bin" / "python")
    folder = str(tmp_path / "data")

    up = eyepiece("up", "--port", str(free_loopback_port()), "--data-dir", folder, EYEPIECE_VLLM_PYTHON=nowhere)
    llm = eyepiece("llm", "--data-dir", folder, EYEPIECE_VLLM_PYTHON=nowhere)

    for ran in (up, llm):
        assert_refused(ran, "no environment with vLLM and Eyepiece's plugin: run `python3 deploy/make_environments.py`")


def test_vllm_without_a_key_stays_on_loopback(tmp_path: Path) -> None:
    ran = eyepiece("llm", "--host", "0.0.0.0", "--data-dir", str(tmp_path))

    assert_refused(ran, "set EYEPIECE_LLM_API_KEY")


def test_a_model_that_is_not_installed_is_refused(tmp_path: Path) -> None:
    ran = eyepiece("up", "--port", str(free_loopback_port()), "--data-dir", str(tmp_path), "--model", "wsi-llava")

    assert_refused(ran, "'wsi-llava' is not installed")


def test_a_wrong_setting_is_named() -> None:
    assert_refused(eyepiece("doctor", EYEPIECE_MAX_UPLOAD_BYTES="much"), "EYEPIECE_MAX_UPLOAD_BYTES is wrong")


def test_no_server_and_no_file_have_exit_codes_of_their_own(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_loopback_port()}"

    assert_refused(eyepiece("ask", "a" * 64, "What?", "--url", url), "Nothing answers", ExitCode.UNREACHABLE)
    assert_refused(eyepiece("upload", str(tmp_path / "missing.svs"), "--url", url), "is not a file")


def test_a_slide_is_not_drawn_over_a_file(tmp_path: Path) -> None:
    path = tmp_path / "precious.svs"
    path.write_text("precious")

    assert_refused(eyepiece("make-slide", str(path)), "exists already")
    assert path.read_text() == "precious"


def test_keys_are_made_shown_and_revoked(tmp_path: Path) -> None:
    folder = ("--data-dir", str(tmp_path))

    made = eyepiece("keys", "create", "--tenant", "clinic-a", "--expires-days", "30", *folder)
    shown = eyepiece("keys", "list", *folder)
    revoked = eyepiece("keys", "revoke", made.stdout[:10], *folder)

    assert (made.returncode, shown.returncode, revoked.returncode) == (0, 0, 0)
    key = made.stdout.strip()
    assert key.startswith("eyp_")
    assert key[:10] in shown.stdout
    assert key not in shown.stdout
    assert "clinic-a" in shown.stdout
    assert eyepiece("keys", "list", *folder).stdout == ""
    assert_refused(eyepiece("keys", "revoke", key[:10], *folder), "No key begins like that")


def test_a_key_cannot_outlive_the_calendar(tmp_path: Path) -> None:
    for days in ("36501", "9999999999"):
        ran = eyepiece("keys", "create", "--tenant", "a", "--expires-days", days, "--data-dir", str(tmp_path))

        assert (ran.returncode, "Traceback" in ran.stderr) == (2, False)
        assert "36500" in ran.stderr


def test_a_tenant_name_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    ran = eyepiece("keys", "create", "--tenant", "../other", "--data-dir", str(tmp_path))

    assert_refused(ran, "A tenant is 1–63 lower-case letters")


def test_models_are_listed_with_their_state(tmp_path: Path) -> None:
    (tmp_path / "models" / "half").mkdir(parents=True)

    shown = eyepiece("models", "list", "--data-dir", str(tmp_path)).stdout

    states = {line.split()[0]: line.split()[1] for line in shown.splitlines()}
    assert states["demo"] == "not"
    assert states["half"] == "damaged"


def test_a_model_that_ships_with_eyepiece_is_installed_and_another_is_refused(tmp_path: Path) -> None:
    folder = ("--data-dir", str(tmp_path))

    installed = eyepiece("models", "install", "demo", *folder)

    assert installed.returncode == 0, installed.stderr
    assert installed.stdout == f"demo is installed in {tmp_path / 'models' / 'demo'}\n"
    rows = json.loads(eyepiece("models", "list", "--json", *folder).stdout)["models"]
    states = {row["name"]: row["state"] for row in rows}
    assert states == {**dict.fromkeys(packaged_names(), "not installed"), "demo": "installed"}
    assert_refused(eyepiece("models", "install", "wsi-llava", *folder), "does not ship with Eyepiece; these do: demo")
