"""The set-up that a fresh clone runs: old Pythons, pip's configuration, stamps, and what failures say."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from encoders.nvidia_driver import least_driver

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy" / "make_environments.py"


@pytest.fixture
def environments(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "deploy"))
    return importlib.import_module("environments")


@pytest.fixture
def pip_configuration(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "deploy"))
    for name in [name for name in os.environ if name.startswith("UV_") or name in ("SSL_CERT_FILE", "ALL_PROXY")]:
        monkeypatch.delenv(name)
    return importlib.import_module("pip_configuration")


def test_an_old_python_is_told_so_in_one_sentence() -> None:
    pretend = f"import runpy, sys; sys.version_info = (3, 9, 18, 'final', 0); runpy.run_path({str(SCRIPT)!r})"

    ran = subprocess.run([sys.executable, "-c", pretend], capture_output=True, text=True, check=False)

    assert ran.returncode == 2
    assert ran.stderr.startswith("Eyepiece needs Python 3.11 to 3.14 and this is 3.9: ")
    assert ran.stderr.count("\n") == 1


def test_the_script_that_says_so_parses_on_old_pythons() -> None:
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 4))

    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.Match)
    assert not [node for node in ast.walk(tree) if isinstance(node, newer)]


def test_pip_options_become_uv_variables(pip_configuration: ModuleType, tmp_path: Path) -> None:
    options = {
        "find-links": str(tmp_path),
        "index-url": "https://packages.example/simple",
        "cert": "/etc/ca.pem",
        "default-timeout": "180",
    }

    assert pip_configuration.uv_environment(options) == {
        "UV_FIND_LINKS": str(tmp_path),
        "UV_DEFAULT_INDEX": "https://packages.example/simple",
        "SSL_CERT_FILE": "/etc/ca.pem",
        "UV_HTTP_TIMEOUT": "180",
    }


def test_places_that_are_not_there_are_left_out(pip_configuration: ModuleType, tmp_path: Path) -> None:
    here = tmp_path.as_uri()
    (tmp_path / "file").touch()
    elsewhere = f"{here}/missing {here}/file"
    options = {"find-links": str(tmp_path / "missing"), "extra-index-url": f"{here} {elsewhere} https://more.example"}

    found = pip_configuration.uv_environment(options)

    assert found["UV_EXTRA_INDEX_URL"] == f"{here} https://more.example"
    assert found["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert "UV_FIND_LINKS" not in found


def test_what_is_set_for_uv_itself_is_left_alone(
    pip_configuration: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UV_FIND_LINKS", "/mine")

    assert pip_configuration.uv_environment({"find-links": str(tmp_path)}) == {}


def test_pips_own_files_and_variables_are_read(
    pip_configuration: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    (tmp_path / "pip.conf").write_text("[global]\nextra-index-url =\n  file:///a\n  file:///b\ntimeout = 5\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_TIMEOUT", "7")

    options = pip_configuration.read_pip_configuration(Path(sys.executable))

    assert options["extra-index-url"].split()[-2:] == ["file:///a", "file:///b"]
    assert options["timeout"] == "7"


def test_only_what_is_installed_counts_as_a_change(environments: ModuleType, tmp_path: Path) -> None:
    pyproject = tmp_path / "pyproject.toml"
    original = '[project]\nname = "x"\ndependencies = ["a>=1"]\n[tool.ruff]\nline-length = 100\n'
    pyproject.write_text(original)
    before = environments.requirement_inputs(pyproject)

    pyproject.write_text(original.replace("100", "120"))
    assert environments.requirement_inputs(pyproject) == before
    pyproject.write_text(original.replace("a>=1", "a>=2"))
    assert environments.requirement_inputs(pyproject) != before


def test_a_changed_c_source_or_a_new_compiler_outdates_the_environment(
    environments: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "some.c"
    source.write_text("int one;")
    monkeypatch.setattr(environments, "COMPILED", (source,))
    monkeypatch.setattr("shutil.which", lambda _: None)
    digests = [environments.planned_environments("cpu")[0].digest]

    source.write_text("int two;")
    digests.append(environments.planned_environments("cpu")[0].digest)
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/cc")
    digests.append(environments.planned_environments("cpu")[0].digest)

    assert len(set(digests)) == 3


def test_an_environment_is_current_only_with_the_stamp_of_the_same_inputs(
    environments: ModuleType, tmp_path: Path
) -> None:
    environment = environments.Environment("server", tmp_path, {"torch": "1"}, lambda *_: None)
    (tmp_path / "bin").mkdir()
    environment.python.touch()
    assert not environment.is_current()

    environment.stamp.write_text(environment.digest)
    assert environment.is_current()
    changed = environments.Environment("server", tmp_path, {"torch": "2"}, lambda *_: None)
    assert not changed.is_current()


@pytest.mark.parametrize(("builds", "gb"), [("cpu", 6), ("cuda", 15)])
def test_too_small_a_disk_is_refused_before_anything_is_written(
    environments: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, builds: str, gb: int
) -> None:
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1_500_000_000))
    both = [environments.Environment(name, tmp_path / name, {}, lambda *_: None) for name in ("server", "vllm")]

    with pytest.raises(environments.SetupError, match=f"need about {gb} GB of disk and 1.5 GB are free"):
        environments.require_disk(both, builds)


def test_a_failing_installer_shows_its_last_lines_and_what_to_do(
    environments: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    script = "import sys\nfor n in range(100): print('line', n)\nsys.exit(1)"

    with pytest.raises(environments.SetupError, match="check that this machine reaches its package index"):
        environments.run_step([sys.executable, "-c", script], environments.INDEX_ADVICE)

    shown = capfd.readouterr().err.splitlines()
    assert shown[-1] == "line 99"
    assert len(shown) == environments.LINES_SHOWN_ON_FAILURE


@pytest.mark.parametrize(("answer", "builds"), [("echo 'GPU 0: NVIDIA H100'", "cuda"), ("exit 9", "cpu")])
def test_the_driver_decides_which_builds_are_installed(
    environments: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str, builds: str
) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text(f"#!/bin/sh\n{answer}\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    assert environments.builds_for_this_machine() == builds


def put_driver(folder: Path, version: str) -> None:
    driver = folder / "nvidia-smi"
    driver.write_text(
        f"#!/bin/sh\ncase $1 in -L) echo 'GPU 0: NVIDIA H100';; *) echo {version}; echo {version};; esac\n"
    )
    driver.chmod(0o755)


@pytest.mark.parametrize(
    ("driver", "arguments", "code"),
    [
        ("550.54.15", [], 1),
        ("550.54.15", ["--builds", "cpu"], 0),
        ("580.65.06", [], 0),
        ("550.1", ["--builds", "cuda"], 0),
    ],
)
def test_a_driver_that_cannot_run_the_cuda_builds_is_told_before_they_are_installed(
    environments: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    driver: str, arguments: list[str], code: int,
) -> None:  # fmt: skip
    put_driver(tmp_path, driver)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    installed: list[str] = []
    monkeypatch.setattr(environments, "bring_up_to_date", lambda outdated, builds, locked: installed.append(builds))
    planned = environments.Environment("server", tmp_path / "none", {}, lambda *_: None)
    monkeypatch.setattr(environments, "planned_environments", lambda builds, locked: [planned])

    assert environments.main(arguments) == code
    assert len(installed) == 1 - code
    assert (f"driver here is {driver} and the CUDA builds need 580" in capsys.readouterr().err) == bool(code)


def test_one_driver_is_meant_everywhere(environments: ModuleType) -> None:
    assert least_driver("13.0") == environments.LEAST_DRIVER
    lock = (ROOT / "deploy" / "locks" / "worker-cuda.txt").read_text()
    assert re.search(r"^cuda-toolkit==13\.", lock, re.MULTILINE), "torch's CUDA has moved: the driver moves with it"
