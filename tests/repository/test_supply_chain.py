"""Locks, images and the audit: images install by hash, and what could not be asked is not called clean."""

import importlib
import json
import re
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "deploy" / "locks").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# What each lock has to satisfy: extras of pyproject.toml, and groups.
WANTED = {
    "api": (["server"], []),
    "worker-cpu": (["worker"], []),
    "worker-cuda": (["worker"], []),
    "server-cpu": (["train", "traces", "eval"], ["dev"]),
    "server-cuda": (["train", "traces", "eval"], ["dev"]),
}
HERE = {"python_version": "3.11", "python_full_version": "3.11.7", "sys_platform": "linux", "extra": ""}


@pytest.fixture
def deploy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "deploy"))


@pytest.fixture
def audit(deploy: None) -> ModuleType:
    return importlib.import_module("audit_locks")


@pytest.fixture
def locks(deploy: None) -> ModuleType:
    return importlib.import_module("lock_environments")


@pytest.fixture
def pin(deploy: None) -> ModuleType:
    return importlib.import_module("pin_images")


def pins(name: str) -> dict[str, list[Version]]:
    """Package → the versions that a lock names, one for each kind of Python or platform."""
    found: dict[str, list[Version]] = {}
    for package, version in re.findall(
        r"(?m)^([a-z0-9._-]+)==([^ ;]+)", (ROOT / f"deploy/locks/{name}.txt").read_text()
    ):
        found.setdefault(canonicalize_name(package), []).append(Version(version))
    return found


def required(extras: list[str], groups: list[str]) -> list[Requirement]:
    """What the extras and groups ask for on Linux, with the extras that they name."""
    texts = list(PROJECT["project"]["dependencies"])
    for group in groups:
        texts += PROJECT["dependency-groups"][group]
    found: list[Requirement] = []
    todo = list(extras)
    while todo:
        for text in PROJECT["project"]["optional-dependencies"][todo.pop()]:
            requirement = Requirement(text)
            if requirement.name == "eyepiece":
                todo += requirement.extras
            else:
                texts.append(text)
    for text in texts:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(HERE):
            found.append(requirement)
    return found


def test_there_is_a_lock_for_every_environment() -> None:
    assert {lock.stem for lock in LOCKS} == {*WANTED, "vllm-cpu", "vllm-cuda", "build", "sbom"}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_names_every_file_by_hash_and_no_host(lock: Path, locks: ModuleType) -> None:
    text = lock.read_text()

    assert not re.search(r"https?:|file:|--index|--extra-index|--find-links|--trusted|@ ", text)
    entries = locks.entries(text.removeprefix(locks.HEADER))
    assert len(entries) >= 5
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+==[^ ;*]+( ;[^\\]+)? \\\n", entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry
    assert locks.HEADER + "".join(entries) == text


@pytest.mark.parametrize("name", WANTED)
def test_a_lock_is_what_the_metadata_asks_for(name: str, locks: ModuleType) -> None:
    locked, (extras, groups) = pins(name), WANTED[name]

    for requirement in required(extras, groups):
        package = canonicalize_name(requirement.name)
        if name.endswith("-cpu") and package in locks.FROM_ELSEWHERE:
            assert package not in locked
            lines = (ROOT / f"deploy/locks/{name}-torch.in").read_text().splitlines()
            assert str(requirement) in lines
            continue
        versions = locked.get(package, [])
        assert versions, f"{package} is not in {name}: run `make locks`"
        assert any(version in requirement.specifier for version in versions), f"{package} of {name}: run `make locks`"


def test_the_locks_of_vllm_have_its_version_and_the_torch_of_the_encoders(locks: ModuleType) -> None:
    assert pins("vllm-cuda")["vllm"] == pins("vllm-cpu")["vllm-cpu"] == [Version(locks.VLLM_VERSION)]
    assert pins("vllm-cuda")["torch"] == pins("worker-cuda")["torch"] == pins("server-cuda")["torch"]
    torch = f"torch=={pins('worker-cuda')['torch'][0]}"
    for name in ("vllm-cpu", "worker-cpu", "server-cpu"):
        assert torch in (ROOT / f"deploy/locks/{name}-torch.in").read_text().splitlines()
        assert not [package for package in pins(name) if package == "torch" or package.startswith("nvidia-")]


def test_the_same_package_has_one_version_in_every_image_of_ours() -> None:
    for package, versions in pins("api").items():
        assert pins("worker-cuda")[package] == versions, f"{package}: run `make locks`"


def test_other_indexes_do_not_reach_a_lock(locks: ModuleType) -> None:
    configured = {"UV_EXTRA_INDEX_URL": "file:///x", "UV_FIND_LINKS": "/w", "UV_INDEX_STRATEGY": "x", "HOME": "/h"}

    assert locks.only_pypi(configured) == {"HOME": "/h", "UV_NO_CONFIG": "1", "UV_DEFAULT_INDEX": locks.PYPI}


def test_images_install_nothing_without_a_hash_but_torch_for_cpus() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ")
    ours = re.compile(r"--no-deps --offline /wheels/")
    torch = re.compile(r"--no-deps \$CPU_TORCH\s+--requirements deploy/locks/[a-z]+-cpu-torch\.in")

    assert re.findall(r"ARG CPU_TORCH(.*)", dockerfile) == ['="--torch-backend cpu"'] * 2
    installs = re.findall(r"(?:uv )?pip install [^&;\n]*", dockerfile)

    assert len(installs) == 10
    for install in installs:
        assert "--require-hashes" in install or ours.search(install) or torch.search(install), install
    for build in re.findall(r"uv build [^&;\n]*", dockerfile):
        assert "--require-hashes --build-constraints deploy/locks/build.txt" in build


def test_every_image_of_others_is_one_that_gets_its_digest(pin: ModuleType) -> None:
    for place in pin.PLACES:
        text = place.read_text()
        named = re.findall(r"(?m)^\s*(?:image: |ARG PYTHON_IMAGE=|# syntax=)(\S+)$", text)
        theirs = [name for name in named if not name.startswith("eyepiece-") and ":" in name]
        assert sorted(set(theirs)) == sorted(tag + (digest or "") for tag, digest in pin.images(text).items())
        assert theirs
    tags = {tag for place in pin.PLACES for tag in pin.images(place.read_text())}
    assert len({tag.partition(":")[0] for tag in tags}) == len(tags), "one image, one tag, wherever it is named"
    assert not [tag for tag in tags if tag.endswith(":latest")]


def test_digests_are_written_behind_tags_and_replaced(pin: ModuleType, tmp_path: Path) -> None:
    place = tmp_path / "docker-compose.yml"
    place.write_text("    image: haproxy:2.6-alpine\n    image: eyepiece-api:${EYEPIECE_TAG:-local}\n")

    for digit in "ab":
        assert pin.main([place], lambda tag, digit=digit: f"sha256:{digit * 64}") == 0
        assert place.read_text() == (
            f"    image: haproxy:2.6-alpine@sha256:{digit * 64}\n    image: eyepiece-api:${{EYEPIECE_TAG:-local}}\n"
        )


def test_a_registry_that_does_not_answer_changes_nothing(
    pin: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "values.yaml"
    place.write_text("  image: b:1\n  image: a:1\n")

    def ask(tag: str) -> str:
        if tag == "b:1":
            raise subprocess.CalledProcessError(1, "docker")
        return "sha256:" + "a" * 64

    assert pin.main([place], ask) == 1
    assert place.read_text() == "  image: b:1\n  image: a:1\n"
    assert "b:1 could not be had; nothing was changed" in capsys.readouterr().err


CLEAN = {"dependencies": [{"name": "a", "version": "1", "vulns": []}], "fixes": []}
KNOWN = {"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "GHSA-1", "fix_versions": ["2"]}]}]}


@pytest.mark.parametrize(
    ("said", "code", "shown"),
    [
        (json.dumps(CLEAN), 0, "No known vulnerabilities"),
        (json.dumps(KNOWN), 1, "a 1: GHSA-1, mended in 2"),
        ("", 2, "could not be done"),
        ('{"dependencies": []}', 2, "could not be done"),
        (json.dumps({"dependencies": [{"name": "a", "skip_reason": "no answer"}]}), 2, "could not be done"),
    ],
)
def test_an_audit_that_was_not_done_is_not_clean(
    audit: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    said: str,
    code: int,
    shown: str,
) -> None:
    monkeypatch.setattr(audit, "audit_command", lambda lock: ["printf", "%s", said])

    assert audit.main(LOCKS[:2]) == code
    captured = capsys.readouterr()
    assert shown in captured.out + captured.err


def test_updates_are_proposed_for_locks_images_and_actions() -> None:
    renovate = json.loads((ROOT / "renovate.json").read_text())

    assert {"pip_requirements", "dockerfile", "docker-compose", "helm-values", "github-actions"} <= set(
        renovate["enabledManagers"]
    )
    assert {"docker:pinDigests"} <= set(renovate["extends"])
    (pattern,) = renovate["pip_requirements"]["managerFilePatterns"]
    assert all(re.search(pattern.strip("/"), str(lock.relative_to(ROOT))) for lock in LOCKS)
