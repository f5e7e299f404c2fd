"""docs/operations.md: what it tells a tired person to type exists."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_lines import parse_command_line
from metric_names import HAPROXY, VLLM, own_metrics

from server.errors import HTTP_STATUS
from server.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = (ROOT / "docs" / "operations.md").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
VARIABLES_OF_COMPOSE = set(re.findall(r"\$\{(EYEPIECE_\w+)", (ROOT / "docker-compose.yml").read_text()))
WORKLOADS = {
    "deploy/eyepiece-api",
    "deploy/eyepiece-worker",
    "statefulset/eyepiece-vllm",
    "statefulset/eyepiece-redis",
}
# `docker compose`'s own options that take no value; the others here do.
_SWITCHES = {"--wait", "--no-deps", "--detach", "--rm", "-T"}


def commands(beginning: str) -> list[str]:
    """Everything on the page, in blocks and in running text, that begins like that, without what it is piped into."""
    code = re.findall(r"^ *```sh\n(.*?)^ *```", RUNBOOK, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in code for line in block.replace("\\\n", " ").splitlines()]
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", RUNBOOK, flags=re.DOTALL))
    return [line for line in (*lines, *inline) if line.startswith(beginning)]


def words(line: str) -> list[str]:
    """The command's words up to where the shell takes over; a quotation that goes on in the next line is one word."""
    lexer = shlex.shlex(line + '"' * (line.count('"') % 2), posix=True, punctuation_chars="|><&")
    lexer.whitespace_split = True
    found = list(lexer)
    ends = [index for index, word in enumerate(found) if set(word) <= set("|><&")]
    return found[: ends[0]] if ends else found


def without_options(arguments: list[str]) -> list[str]:
    """The arguments behind the options."""
    while arguments and arguments[0].startswith("-"):
        arguments = arguments[1:] if arguments[0] in _SWITCHES or "=" in arguments[0] else arguments[2:]
    return arguments


def eyepiece_command_of(service: str, arguments: list[str]) -> list[str] | None:
    """What `eyepiece` is asked to do, when it is."""
    if arguments[:1] == ["eyepiece"]:
        return arguments[1:]
    return arguments if service in ("models", "api") and arguments[:1] in (["models"], ["keys"]) else None


@pytest.mark.parametrize("line", commands("eyepiece "))
def test_every_eyepiece_command_exists(line: str) -> None:
    if words(line) != ["eyepiece", "up"]:  # in running text it stands for the process
        parse_command_line(words(line)[1:])


@pytest.mark.parametrize("line", commands("docker compose "))
def test_every_compose_command_is_about_services_that_exist(line: str) -> None:
    verb, *arguments = words(line)[2:]
    services = set(COMPOSE["services"])

    assert verb in {"up", "run", "exec", "stop", "ps", "logs", "build"}
    named = without_options(arguments)
    if verb in ("run", "exec"):
        assert named[0] in services
        asked = eyepiece_command_of(named[0], named[1:])
        if asked is not None:
            parse_command_line(asked)
    else:
        assert set(named) <= services
    scaled = [arguments[index + 1].split("=")[0] for index, word in enumerate(arguments) if word == "--scale"]
    assert set(scaled) <= services


@pytest.mark.parametrize("line", commands("kubectl "))
def test_every_kubectl_command_is_about_what_the_chart_makes(line: str) -> None:
    named = set(re.findall(r"(?:deploy|statefulset)/[\w-]+", line))
    pods = set(re.findall(r"\beyepiece-(\w+)-0\b", line))

    assert named <= WORKLOADS
    assert pods <= {"vllm", "redis"}
    if " -- eyepiece " in line:
        parse_command_line(words(line.split(" -- eyepiece ")[1]))


def test_every_metric_that_is_named_exists() -> None:
    named = set(re.findall(r"`((?:eyepiece_|vllm:|haproxy_)\w+)`", RUNBOOK))

    known = own_metrics() | VLLM | HAPROXY

    assert named
    assert not [name for name in named if not {name, f"{name}_bucket"} & known]


def test_every_setting_that_is_named_exists() -> None:
    named = set(re.findall(r"`(EYEPIECE_\w+)`", RUNBOOK))
    known = {f"EYEPIECE_{name.upper()}" for name in Settings.model_fields}

    assert named
    assert named <= known | VARIABLES_OF_COMPOSE


@pytest.mark.parametrize(
    "code", ["slide_lost", "storage_full", "overloaded", "missing_mpp", "unreadable_slide", "no_tissue"]
)
def test_every_code_that_is_named_exists(code: str) -> None:
    assert f"`{code}`" in RUNBOOK
    assert code in HTTP_STATUS


def test_every_link_leads_somewhere() -> None:
    titles = re.findall(r"^#+ (.+)$", RUNBOOK, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}

    assert {target for target in re.findall(r"\]\(#([^)]+)\)", RUNBOOK)} <= anchors


def test_the_haproxy_of_compose_has_what_is_typed_into_it() -> None:
    rules = (ROOT / "deploy" / "haproxy" / "haproxy.cfg").read_text()

    assert "nc 127.0.0.1 9999" in RUNBOOK
    assert 'ADMIN_BIND "ipv4@127.0.0.1:9999"' in rules
    assert "server-template vllm 1-" in (ROOT / "deploy" / "haproxy" / "servers-compose.cfg").read_text()
