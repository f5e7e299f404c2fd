"""`make images`: builds the three images of deploy/Dockerfile, looks at what came out, and lists what is in them.

    eyepiece-api:TAG   eyepiece-worker:TAG-BUILDS   eyepiece-vllm:TAG-BUILDS      BUILDS: cpu or cuda, TAG: local

    build/images/eyepiece-api.cdx.json        its components (CycloneDX)
    build/images/eyepiece-api.licences.txt    and their licences
    build/images/eyepiece-api.log             what the engine said

Which engine: container_engine.py. Packages come from where pip is configured to look; a folder of wheels is mounted,
which Podman alone can. An image that is larger than it may be, or has what it should not have, is named, stays for a
look, and makes the exit code 1. Standard library only.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from container_engine import ROOT, Engine, EngineError, choose_engine, work_folder
from pip_configuration import read_pip_configuration, uv_environment

OUT = ROOT / "build" / "images"
LISTS = {"sbom.cdx.json": "cdx.json", "licences.txt": "licences.txt"}
# GB (10⁹ bytes) on disk, for the CPU builds.
LARGEST_GB = {"api": 0.5, "worker": 1.6, "vllm": 4.2}
# What must not be there: the trainer anywhere, and a compiler where nothing compiles.
LOOK = """
import importlib.util, json, shutil, sys
print(json.dumps([name for name in ("training", "torch") if importlib.util.find_spec(name)]
                 + [name for name in ("cc", "gcc", "g++") if shutil.which(name)]))
"""
# What each image has to load, whatever was taken out of it: what opens slides, what serves, what writes a report.
LOADED = {
    "api": "openslide, server.app, server.reports.write_pdf, encoders.tiling.isolation.answer_requests",
    "worker": "openslide, server.worker, encoders.tiling.isolation.answer_requests",
    "vllm": "server.commands.llm",
}
# Only this much of a failed build is shown; the rest is in its log.
_TAIL_LINES = 30


@dataclass(frozen=True)
class Wanted:
    """One image: the Dockerfile's target, and the name that docker-compose.yml knows."""

    target: str
    builds: str
    tag: str

    @property
    def image(self) -> str:
        """Without torch there is nothing to tell apart by the tag."""
        return f"eyepiece-{self.target}:{self.tag}" + ("" if self.target == "api" else f"-{self.builds}")

    @property
    def unwanted(self) -> set[str]:
        """What may not be found in it."""
        compilers = {"cc", "gcc", "g++"} if self.builds == "cpu" or self.target == "api" else set()
        return {"training"} | compilers | ({"torch"} if self.target != "worker" else set())


class ImageError(Exception):
    """An image could not be built."""


def package_sources(variables: Mapping[str, str], engine: Engine) -> tuple[list[str], dict[str, str]]:
    """Arguments of the build, and variables that it takes without their values standing in an argument.

    Raises:
        ImageError: a folder of wheels, and an engine that cannot mount it.
    """
    configured = uv_environment(read_pip_configuration(Path(sys.executable)))
    found = {
        name: value
        for name in ("UV_DEFAULT_INDEX", "UV_FIND_LINKS")
        if (value := variables.get(name) or configured.get(name, ""))
    }
    arguments = [part for name in found for part in ("--build-arg", name)]
    folders = [place for place in found.get("UV_FIND_LINKS", "").split(",") if Path(place).is_dir()]
    if folders and not engine.is_podman:
        raise ImageError(
            "pip is configured to take wheels from a folder, which Docker cannot see while it builds: take Podman "
            "(ENGINE=podman), or an index, with UV_FIND_LINKS set to its address."
        )
    for folder in folders:
        arguments += ["--volume", f"{folder}:{folder}:ro"]
    if any(list(Path(folder).glob("torch-*+cpu-*.whl")) for folder in folders):
        arguments += ["--build-arg", "CPU_TORCH="]  # not from PyTorch's own index
    return arguments, found


def build(engine: Engine, wanted: Wanted, sources: tuple[list[str], dict[str, str]]) -> None:
    """Builds one image.

    Raises:
        ImageError: the engine could not.
    """
    arguments, variables = sources
    log = OUT / f"eyepiece-{wanted.target}.log"
    command = [
        engine.name, "build", *arguments, "--build-arg", f"BUILDS={wanted.builds}",
        *(["--network", "host"] if engine.makes_bases else []),
        "--file", str(ROOT / "deploy" / "Dockerfile"), "--target", wanted.target, "--tag", wanted.image, str(ROOT),
    ]  # fmt: skip
    with log.open("w") as output:
        environment = {**os.environ, **variables, **engine.environment}
        ended = subprocess.run(command, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False)
    if ended.returncode:
        last = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-_TAIL_LINES:])
        raise ImageError(f"{wanted.image} was not built:\n{last}The whole log: {log}")


def in_container(engine: Engine, image: str, *command: str) -> str:
    """What a command prints in a container of the image, without a network."""
    first, *rest = command
    return engine.run("run", "--rm", "--network", "none", "--entrypoint", first, image, *rest)


def size_gb(engine: Engine, image: str) -> float:
    """On disk, with all its layers."""
    return int(engine.run("image", "inspect", "--format", "{{.Size}}", image)) / 1e9


@dataclass(frozen=True)
class Look:
    """What an image is like, and what is wrong with that; its lists are written beside its log."""

    size_gb: float
    components: int
    complaints: list[str]


def look_at(engine: Engine, wanted: Wanted) -> Look:
    """Looks at an image that was built."""
    complaints = []
    found = set(json.loads(in_container(engine, wanted.image, "/opt/eyepiece/bin/python", "-c", LOOK)))
    if found & wanted.unwanted:
        complaints.append(f"{wanted.image} has {', '.join(sorted(found & wanted.unwanted))}, which it should not have.")
    in_container(engine, wanted.image, "/opt/eyepiece/bin/python", "-c", f"import {LOADED[wanted.target]}")
    for name, ending in LISTS.items():
        text = in_container(engine, wanted.image, "cat", f"/usr/share/eyepiece/{name}")
        (OUT / f"eyepiece-{wanted.target}.{ending}").write_text(text + "\n")
    components = json.loads((OUT / f"eyepiece-{wanted.target}.cdx.json").read_text())["components"]
    size = size_gb(engine, wanted.image)
    if wanted.builds == "cpu" and size > LARGEST_GB[wanted.target]:
        complaints.append(f"{wanted.image} has {size:.2f} GB, and may have {LARGEST_GB[wanted.target]} GB.")
    return Look(size, len(components), complaints)


def make_bases(engine: Engine) -> None:
    """The engine and its base images, where they are made here.

    Raises:
        ImageError: they could not be made; the script has said why.
    """
    script = ROOT / "deploy" / "debian_bases.sh"
    if engine.makes_bases and subprocess.run([script, work_folder(os.environ)], check=False).returncode:
        raise ImageError("The base images could not be made, see the lines above.")


def main(arguments: Sequence[str]) -> int:
    """Exit code: 0 all are as they should be, 1 one is not, or could not be built."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--builds", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tag", default="local")
    options = parser.parse_args(arguments)
    OUT.mkdir(parents=True, exist_ok=True)
    started, complaints = time.monotonic(), []
    try:
        engine = choose_engine(os.environ)
        make_bases(engine)
        sources = package_sources(os.environ, engine)
        for target in LARGEST_GB:
            wanted = Wanted(target, options.builds, options.tag)
            print(f"{wanted.image} …", flush=True)
            build(engine, wanted, sources)
            look = look_at(engine, wanted)
            complaints += look.complaints
            minutes = (time.monotonic() - started) / 60
            print(f"    {look.size_gb:.2f} GB, {look.components} components; {minutes:.1f} minutes", flush=True)
    except (EngineError, ImageError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"{' '.join(map(str, error.cmd[:3]))} … failed: {error.stderr}\n")
        return 1
    print(f"Lists of components and licences: {OUT.relative_to(ROOT)}")
    sys.stderr.write("".join(f"{complaint}\n" for complaint in complaints))
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
