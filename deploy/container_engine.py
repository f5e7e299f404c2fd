"""Docker or Podman, whichever answers, and Compose for it: what `make images` and `make stack` run.

    ENGINE=docker|podman   that one, in place of the first that answers
    BASES=debian           Debian's own Podman, with all that it makes in IMAGES_DIR, apart from others, and base images
                           made of Debian's packages by `debian_bases.sh`: for a machine that has neither an engine
                           nor a registry. Debian 12, root, x86-64.
    IMAGES_DIR=folder      /var/tmp/eyepiece-images

Standard library only.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_WORK = Path("/var/tmp/eyepiece-images")  # noqa: S108 - root's own, and large
PODMAN_COMPOSE_FILE = ROOT / "deploy" / "compose.podman.yml"


class EngineError(Exception):
    """No engine, or not the one that was asked for; the text says what to do."""


@dataclass(frozen=True)
class Engine:
    """The command, the variables that it needs, and whether its base images are made here."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    makes_bases: bool = False

    @property
    def is_podman(self) -> bool:
        """Podman runs no health checks by itself without systemd, and mounts folders while it builds."""
        return self.name == "podman"

    @property
    def compose(self) -> list[str]:
        """Compose with this project's files, before its own words."""
        files = ["-f", str(ROOT / "docker-compose.yml")]
        if self.is_podman:
            return [sys.executable, "-m", "podman_compose", *files, "-f", str(PODMAN_COMPOSE_FILE)]
        return ["docker", "compose", *files]

    def run(self, *arguments: str, check: bool = True) -> str:
        """What a command of the engine prints.

        Raises:
            CalledProcessError: it failed; its own words stand in `stderr`.
        """
        ended = subprocess.run(
            [self.name, *arguments],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and ended.returncode:
            error = subprocess.CalledProcessError(ended.returncode, ended.args, ended.stdout, ended.stderr)
            error.add_note(ended.stderr)  # the engine's own words, which a traceback would leave out
            raise error
        return ended.stdout.strip()

    def answers(self) -> bool:
        """Whether it is installed and can be used by this user."""
        if shutil.which(self.name) is None:
            return False
        variables = {**os.environ, **self.environment}
        try:
            asked = subprocess.run([self.name, "info"], env=variables, capture_output=True, timeout=60, check=False)
            return asked.returncode == 0
        except subprocess.TimeoutExpired:
            return False


def work_folder(variables: Mapping[str, str]) -> Path:
    """Where the engine of `BASES=debian` keeps everything."""
    return Path(variables.get("IMAGES_DIR") or DEFAULT_WORK).resolve()


def debian_engine(work: Path) -> Engine:
    """Podman with what `debian_bases.sh` configures."""
    configuration = {
        "CONTAINERS_CONF": str(work / "conf" / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(work / "conf" / "storage.conf"),
    }
    return Engine("podman", configuration, makes_bases=True)


def choose_engine(variables: Mapping[str, str]) -> Engine:
    """The engine that the variables name, or the first that answers.

    Raises:
        EngineError: none does.
    """
    bases, wanted = variables.get("BASES", ""), variables.get("ENGINE", "")
    if bases not in ("", "debian") or wanted not in ("", "docker", "podman"):
        raise EngineError("BASES is debian or not set, ENGINE is docker, podman or not set.")
    if bases:
        if wanted == "docker":
            raise EngineError("BASES=debian brings Podman along: leave ENGINE away.")
        return debian_engine(work_folder(variables))
    for engine in map(Engine, [wanted] if wanted else ["docker", "podman"]):
        if engine.answers():
            return engine
    raise EngineError(
        f"No container engine answers ({wanted or 'docker, podman'}): install one, start it, and see that this user "
        "may use it. On Debian 12 without a registry, root can take BASES=debian."
    )
