"""docker-compose.yml and the Dockerfile, as far as they can be checked without a container engine."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from server.__main__ import app

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
LASTING = {name: service for name, service in SERVICES.items() if service["restart"] != "no"}


def stages() -> dict[str, str]:
    """The Dockerfile's stages: name → instructions."""
    parts = re.split(r"^FROM \S+ AS (\S+)$", DOCKERFILE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def parse_command_line(arguments: list[str]) -> None:
    """Fails as the command line would on a command or an option that does not exist."""
    command = get_command(app)
    while arguments and arguments[0] in getattr(command, "commands", {}):
        name, *arguments = arguments
        command = command.commands[name]  # type: ignore[attr-defined]
    assert not hasattr(command, "commands"), f"no such command: {arguments}"
    command.make_context("eyepiece", list(arguments))


def test_the_services_are_those_of_the_design() -> None:
    assert set(SERVICES) == {"demo-model", "api", "worker", "vllm", "redis"}


@pytest.mark.parametrize("name", OURS)
def test_every_command_exists_in_the_command_line(name: str) -> None:
    parse_command_line(OURS[name]["command"])


@pytest.mark.parametrize("name", OURS)
def test_every_image_is_a_stage_that_runs_as_another_user_than_root(name: str) -> None:
    stage = stages()[OURS[name]["build"]["target"]]

    assert (ROOT / OURS[name]["build"]["dockerfile"]).is_file()
    assert re.findall(r"^USER (\S+)$", stage, re.MULTILINE) == ["eyepiece"]
    assert "PYTHONSAFEPATH=1" in stages()["base"]


@pytest.mark.parametrize("stage", ["api", "worker", "vllm"])
def test_the_images_own_commands_exist_too(stage: str) -> None:
    command = re.search(r"^CMD \[(.+)\]$", stages()[stage], re.MULTILINE)

    assert command
    parse_command_line(re.findall(r'"([^"]+)"', command[1]))


def test_what_the_dockerfile_copies_is_there_and_not_ignored() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    allowed = (ROOT / ".dockerignore").read_text().splitlines()

    for source in " ".join(copied).split():
        assert (ROOT / source).exists(), source
        assert f"!{source}" in allowed, source


def test_vllm_and_redis_are_out_of_reach() -> None:
    assert COMPOSE["networks"]["internal"] == {"internal": True}
    for name in ("vllm", "redis"):
        assert SERVICES[name]["networks"] == ["internal"]
        assert "ports" not in SERVICES[name]
    assert all(port.startswith("127.0.0.1:") for port in SERVICES["api"]["ports"])


@pytest.mark.parametrize("name", LASTING)
def test_every_lasting_service_has_a_healthcheck(name: str) -> None:
    assert LASTING[name]["healthcheck"]["test"]


def test_secrets_have_no_default_and_stand_in_no_argument() -> None:
    text = (ROOT / "docker-compose.yml").read_text()

    for secret in ("EYEPIECE_REDIS_PASSWORD", "EYEPIECE_LLM_API_KEY"):
        assert set(re.findall(rf"\${{{secret}(..)", text)) == {":?"}
        assert not [service for service in SERVICES.values() if secret in str(service.get("command"))]


def test_the_settings_that_are_set_exist() -> None:
    from server.settings import Settings

    known = {f"EYEPIECE_{name.upper()}" for name in Settings.model_fields}
    for name, service in OURS.items():
        assert set(service.get("environment", {})) <= known, name
