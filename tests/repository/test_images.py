"""`make images` as far as it goes without an engine: which one is taken, what it is told, what an image may not have.

The rest is seen by building.
"""

import importlib
import json
import os
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
# Of a Debian image: a copyright file for machines, one in prose, none.
COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
License: LGPL-2.1+

Files: debian/*
License: GPL-2+

License: GPL-2+
 On Debian systems see /usr/share/common-licenses/GPL-2.
"""


@pytest.fixture
def deploy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "deploy"))


@pytest.fixture
def engines(deploy: None) -> ModuleType:
    return importlib.import_module("container_engine")


@pytest.fixture
def images(deploy: None) -> ModuleType:
    return importlib.import_module("build_images")


@pytest.fixture
def lists(deploy: None) -> ModuleType:
    return importlib.import_module("list_components")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH; an engine is installed by a script in it."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def install(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_the_first_engine_that_answers_is_taken(engines: ModuleType, installed: Path) -> None:
    with pytest.raises(engines.EngineError, match="No container engine answers"):
        engines.choose_engine({})
    install(installed, "docker", "exit 1")  # its daemon does not run
    install(installed, "podman", "exit 0")
    assert engines.choose_engine({}).name == "podman"
    with pytest.raises(engines.EngineError, match="docker"):
        engines.choose_engine({"ENGINE": "docker"})
    install(installed, "docker", "exit 0")
    assert engines.choose_engine({}).name == "docker"
    assert engines.choose_engine({"ENGINE": "podman"}).name == "podman"


def test_bases_of_debian_are_made_only_where_they_are_asked_for(engines: ModuleType, tmp_path: Path) -> None:
    engine = engines.choose_engine({"BASES": "debian", "IMAGES_DIR": str(tmp_path)})

    assert engine.makes_bases
    assert engine.is_podman
    assert all(str(tmp_path) in value for value in engine.environment.values())
    for variables in ({"BASES": "debian", "ENGINE": "docker"}, {"BASES": "ubuntu"}, {"ENGINE": "lxc"}):
        with pytest.raises(engines.EngineError):
            engines.choose_engine(variables)


@pytest.mark.parametrize("builds", ["cpu", "cuda"])
def test_images_get_the_names_that_compose_looks_for(images: ModuleType, builds: str) -> None:
    named = {
        service["image"].replace("${EYEPIECE_TAG:-local}", "t").replace("${EYEPIECE_BUILDS:-cpu}", builds)
        for service in COMPOSE["services"].values()
        if "build" in service
    }

    assert {images.Wanted(target, builds, "t").image for target in images.LARGEST_GB} == named


def test_a_folder_of_wheels_is_mounted_and_no_address_stands_in_an_argument(
    images: ModuleType, engines: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl").touch()
    sources = {"UV_FIND_LINKS": str(tmp_path), "UV_DEFAULT_INDEX": "https://user:secret@index.example.org/simple"}

    arguments, variables = images.package_sources(sources, engines.Engine("podman"))

    assert "secret" not in " ".join(arguments)
    assert variables == sources
    assert ["--volume", f"{tmp_path}:{tmp_path}:ro", "--build-arg", "CPU_TORCH="] == arguments[-4:]
    with pytest.raises(images.ImageError, match="ENGINE=podman"):
        images.package_sources(sources, engines.Engine("docker"))


def test_what_an_image_may_not_have_is_looked_for(
    images: ModuleType, engines: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, size = ["training"], "400000000"

    def run(self: Any, *arguments: str) -> str:
        if "inspect" in arguments:
            return size
        return '{"components": [1, 2]}' if "cat" in arguments else json.dumps(found)

    monkeypatch.setattr(engines.Engine, "run", run)
    monkeypatch.setattr(images, "OUT", tmp_path)
    engine, api = engines.Engine("docker"), images.Wanted("api", "cpu", "t")
    for name in ("training", "torch", "gcc"):
        found = [name]
        assert f" has {name}, " in images.look_at(engine, api).complaints[0]
    found = []
    assert images.look_at(engine, api) == images.Look(0.4, 2, [])
    size = "600000000"
    assert "0.60 GB" in images.look_at(engine, api).complaints[0]
    found = ["torch"]
    assert not images.look_at(engine, images.Wanted("worker", "cpu", "t")).complaints
    found = ["torch", "gcc"]
    assert not images.look_at(engine, images.Wanted("worker", "cuda", "t")).complaints
    assert images.look_at(engine, images.Wanted("worker", "cpu", "t")).complaints


def test_a_build_that_fails_shows_its_last_lines(
    images: ModuleType, engines: ModuleType, installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(installed, "docker", "echo 'no such package' >&2; exit 1")
    monkeypatch.setattr(images, "OUT", tmp_path)

    with pytest.raises(images.ImageError, match="no such package"):
        images.build(engines.Engine("docker"), images.Wanted("api", "cpu", "t"), ([], {}))


def test_debians_packages_are_listed_with_their_licences(lists: ModuleType, tmp_path: Path) -> None:
    for name, text in {"libone": COPYRIGHT, "two": "This is free software.\n"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "copyright").write_text(text)
    listed = [
        "installed libone 1:2.0+b1 amd64",
        "installed two 3 all",
        "installed none 4 all",
        "config-files gone 1 all",
    ]

    components = lists.debian_components(listed, tmp_path, "12")

    assert components[0]["purl"] == "pkg:deb/debian/libone@1%3A2.0%2Bb1?arch=amd64&distro=debian-12"
    assert lists.licences_text(components) == (
        "libone 1:2.0+b1: GPL-2+; LGPL-2.1+\nnone 4: not declared\ntwo 3: as in the package's copyright file\n"
    )


def test_the_same_package_of_two_environments_is_listed_twice(lists: ModuleType) -> None:
    document = {
        "components": [
            {"bom-ref": "a==1", "name": "a", "version": "1"},
            {"bom-ref": "b==1", "name": "b", "version": "1"},
        ],
        "dependencies": [{"ref": "a==1", "dependsOn": ["b==1"]}, {"ref": "b==1"}],
    }
    parts = [lists.in_environment(document, Path(it)) for it in ("/opt/eyepiece", "/opt/vllm")]

    whole = lists.document_of("eyepiece-vllm", parts)

    references = [it["bom-ref"] for it in whole["components"]]
    assert len(set(references)) == 4
    assert {"ref": "/opt/vllm:a==1", "dependsOn": ["/opt/vllm:b==1"]} in whole["dependencies"]
    assert whole["dependencies"][0] == {"ref": "eyepiece-vllm", "dependsOn": references}
    assert {it["ref"] for it in whole["dependencies"]} == {"eyepiece-vllm", *references}


def test_the_scripts_are_shell(tmp_path: Path) -> None:
    for script in (ROOT / "deploy").glob("*.sh"):
        text = script.read_text()
        assert text.startswith(("#!/bin/sh\n", "#!/usr/bin/env bash\n")), script.name
        subprocess.run([text.splitlines()[0].rsplit("/", 1)[-1].split()[-1], "-n", script], check=True, env=os.environ)


def test_compose_for_podman_changes_every_service_that_logs() -> None:
    podman = yaml.safe_load((ROOT / "deploy" / "compose.podman.yml").read_text())

    assert set(podman["services"]) == set(COMPOSE["services"])
    assert {it["logging"]["driver"] for it in podman["services"].values()} == {"k8s-file"}
