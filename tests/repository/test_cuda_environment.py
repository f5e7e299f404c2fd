"""`make cuda-environment`, as far as it goes without 8 GB: what it calls a fault, and that nothing of it stays."""

import ctypes
import importlib
import importlib.util
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from types import ModuleType, SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "deploy"))
    return importlib.import_module("cuda_environment")


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "deploy"))
    return importlib.import_module("cuda_imports")


def installed(name: str, *files: str) -> SimpleNamespace:
    return SimpleNamespace(metadata={"Name": name}, files=[PurePosixPath(file) for file in files])


def test_files_that_two_packages_installed_are_named(imports: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = [
        installed("cuda-bindings", "cuda/bindings/runtime.so", "cuda_bindings-13.4.4.dist-info/RECORD"),
        installed("flashinfer-python", "flashinfer/__init__.py", "build_backend.py"),
        installed("torch-c-dlpack-ext", "build_backend.py"),
    ]
    monkeypatch.setattr(imports, "distributions", lambda: packages)
    assert imports.overwritten_files() == "4 files"

    packages.append(installed("cuda-python", "cuda/bindings/runtime.so", "cuda/cuda.so"))
    with pytest.raises(AssertionError, match=r"1 files .*: cuda/bindings/runtime.so of cuda-bindings and cuda-python"):
        imports.overwritten_files()


def test_every_architecture_of_the_plugin_has_to_be_known(imports: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "vllm_plugin"))
    ours = importlib.import_module("eyepiece_vllm").ARCHITECTURES
    known = [*ours, "LlamaForCausalLM"]
    registry = SimpleNamespace(get_supported_archs=lambda: known)
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(ModelRegistry=registry))
    monkeypatch.setitem(sys.modules, "vllm.plugins", SimpleNamespace(load_general_plugins=lambda: None))
    assert imports.plugin_is_known() == ", ".join(ours)

    known.remove(ours[-1])
    with pytest.raises(AssertionError, match=f"does not know {ours[-1]}"):
        imports.plugin_is_known()


def test_what_is_imported_of_ours_is_there(imports: ModuleType) -> None:
    for module in imports.WORKER:
        assert importlib.util.find_spec(module), module
    for module in imports.PLUGIN:
        assert (ROOT / "vllm_plugin" / f"{module.replace('.', '/')}.py").exists(), module


def test_one_failure_hides_no_other(
    imports: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(imports, "WORKER", ("json", "no_such_module_here", "csv"))
    monkeypatch.setattr(imports, "overwritten_files", lambda: "3 files")
    monkeypatch.setattr(imports, "torch_is_built_for", lambda major: major)

    assert imports.main("worker", "13") == 1

    shown = capsys.readouterr().out
    assert "FAILED import no_such_module_here" in shown
    assert "ok     no file of two packages: 3 files" in shown
    assert "ok     import csv" in shown


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_stand_in_of_the_driver_has_every_function_and_no_device(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "_C.so").write_bytes(b"\x7fELF\0cuTensorMapEncodeTiled\0cublasCreate_v2\0cudaMalloc\0cuInit\0")

    folder = script.driver_stand_in(tmp_path / "driver", tmp_path / "vllm")

    library = ctypes.CDLL(str(folder / "libcuda.so.1"))
    assert library.cuInit(0) == library.cuTensorMapEncodeTiled() == 100
    assert not hasattr(library, "cublasCreate_v2")
    assert not hasattr(library, "cudaMalloc")


@pytest.mark.parametrize("codes", [{"worker": 0, "vllm": 0}, {"worker": 1, "vllm": 0}, {"worker": 0, "vllm": 1}])
def test_nothing_stays_and_one_fault_is_a_fault(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, codes: dict[str, int]
) -> None:
    def check(name: str, folder: Path, variables: dict[str, str]) -> int:
        assert variables["UV_CACHE_DIR"].startswith(str(folder))
        (folder / name).mkdir()
        return codes[name]

    monkeypatch.delenv("UV_CACHE_DIR", raising=False)
    monkeypatch.setattr(script, "NEEDED_GB", 0.0)
    monkeypatch.setattr(script, "check", check)
    monkeypatch.setattr(script, "read_pip_configuration", lambda python: {})

    assert script.main(["--folder", str(tmp_path / "cuda")]) == max(codes.values())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_somebodys_is_left_alone(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "theirs").touch()

    assert script.main(["--folder", str(tmp_path)]) == 1
    assert (tmp_path / "theirs").exists()
    assert "is there already" in capsys.readouterr().err


def locked(name: str) -> list[Requirement]:
    lines = (ROOT / "deploy" / "locks" / f"{name}.txt").read_text().splitlines()
    return [Requirement(line.rstrip(" \\")) for line in lines if line[:1].isalnum()]


def versions(packages: Sequence[Requirement], name: str) -> set[Version]:
    return {Version(next(iter(it.specifier)).version) for it in packages if it.name == name}


def test_one_package_of_cudas_bindings_is_locked_under_both_its_names() -> None:
    packages = locked("vllm-cuda")

    (bindings,) = versions(packages, "cuda-bindings")
    assert versions(packages, "cuda-python") == {bindings}
    assert bindings.major == 13
    overrides = (ROOT / "deploy" / "vllm-overrides.txt").read_text().splitlines()
    assert "cuda-python>=13,<14" in overrides, "an installation without the lock gets it too"
