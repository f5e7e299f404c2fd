"""What the repository promises about its packages: what is in the wheels, and what importing them loads."""

import ast
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_store.files.sha256sums import SUMS_FILE, read_sums
from model_store.packaged_models import PACKAGED, packaged_models

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("server", "encoders", "model_store", "synthetic", "evaluation", "web")  # in the wheel
OURS = {*PACKAGES, "training", "eyepiece_vllm", "tests", "deploy", "attacks", "benchmarks", "loadtests"}

COMPILED = "encoders/tiling/slide_readers/compiled_mean.abi3.so"
compiles = pytest.mark.skipif(
    sysconfig.get_platform() != "linux-x86_64" or shutil.which("cc") is None,
    reason="needs Linux, x86-64 and a C compiler",
)


def sources(package: str) -> Iterator[Path]:
    yield from sorted((ROOT / package).rglob("*.py"))


def imported_packages(path: Path) -> set[str]:
    """The top-level packages of ours that a file imports, wherever in the file it does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or path.is_relative_to(ROOT / "vllm_plugin"), f"{path}: a relative import"
            found.add((node.module or "").split(".")[0])
    return found & OURS


def run_hatchling(project: Path, folder: Path, **environment: str) -> str:
    """What it printed."""
    return subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=project,
        env={**os.environ, **environment},
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ).stdout


def build_wheel(project: Path, folder: Path) -> zipfile.ZipFile:
    run_hatchling(project, folder)
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel)


def top_level_names(wheel: zipfile.ZipFile) -> set[str]:
    names = {name.split("/")[0] for name in wheel.namelist()}
    return {name for name in names if not name.endswith(".dist-info")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    with build_wheel(ROOT, tmp_path_factory.mktemp("wheel")) as wheel:
        yield wheel


def test_the_wheel_holds_exactly_our_packages_and_what_they_read(wheel: zipfile.ZipFile) -> None:
    assert top_level_names(wheel) == set(PACKAGES)
    assert {
        "model_store/manifests/wsi-llava.toml",
        "server/py.typed",
        "web/page/index.html",
        "evaluation/report/report.html.jinja",
    } <= set(wheel.namelist())


@compiles
def test_the_wheel_holds_what_was_compiled_for_this_platform(wheel: zipfile.ZipFile) -> None:
    assert COMPILED in wheel.namelist()
    assert str(wheel.filename).endswith("-cp311-abi3-linux_x86_64.whl")


@compiles
@pytest.mark.parametrize("compiler", ["no-such-compiler", "false", "cc --no-such-option"])
def test_without_a_compiler_the_wheel_is_pure_and_the_reason_is_told(tmp_path: Path, compiler: str) -> None:
    source = COMPILED.replace(".abi3.so", ".c")
    for name in ("pyproject.toml", "README.md", "LICENSE", "deploy/compile_mean.py", source):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / COMPILED).write_bytes(b"of an older source")

    printed = run_hatchling(tmp_path, tmp_path / "wheels", CC=compiler)

    (wheel,) = (tmp_path / "wheels").iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    assert f"{source} is not compiled" in printed
    assert compiler.split()[-1] in printed
    assert [path.name for path in (tmp_path / source).parent.iterdir()] == [Path(source).name]
    assert COMPILED not in zipfile.ZipFile(wheel).namelist()


@pytest.mark.parametrize("name", packaged_models())
def test_the_wheel_holds_every_packaged_model_byte_for_byte(wheel: zipfile.ZipFile, name: str) -> None:
    digests = read_sums(PACKAGED / name)

    held = {path: hashlib.sha256(wheel.read(f"model_store/packaged/{name}/{path}")).hexdigest() for path in digests}

    assert held == digests
    assert f"model_store/packaged/{name}/{SUMS_FILE}" in wheel.namelist()


def test_the_plugins_wheel_holds_the_plugin_only(tmp_path: Path) -> None:
    with build_wheel(ROOT / "vllm_plugin", tmp_path) as wheel:
        assert top_level_names(wheel) == {"eyepiece_vllm"}


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_in_the_wheel_imports_nothing_of_ours_that_is_not(package: str) -> None:
    wrong = {
        str(path.relative_to(ROOT)): extra
        for path in sources(package)
        if (extra := imported_packages(path) - set(PACKAGES))
    }

    assert wrong == {}


def test_the_plugin_shares_no_code_with_the_rest() -> None:
    assert {name for path in sources("vllm_plugin") for name in imported_packages(path)} == {"eyepiece_vllm"}


@pytest.mark.parametrize("module", ["server.app", "server.__main__", "encoders.types", "model_store.packaged_models"])
def test_importing_it_loads_no_torch(module: str) -> None:
    script = f"import sys, {module}; assert 'torch' not in sys.modules"

    subprocess.run([sys.executable, "-c", script], check=True)


def test_there_is_no_package_below_tests() -> None:
    """With `tests/server/__init__.py`, `import server` inside a test would get `tests/server`."""
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_every_package_is_a_regular_package_with_types() -> None:
    for package in (*PACKAGES, "training"):
        assert (ROOT / package / "py.typed").exists()
        folders = {path.parent for path in sources(package)}
        assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
