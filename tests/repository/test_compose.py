"""docker-compose.yml and the Dockerfile, as far as they can be checked without a container engine.

`make images && make stack` builds and runs them (test_compose_stack.py).
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_lines import parse_command_line

from encoders.nvidia_driver import least_driver
from server.commands.gpu_shares import plan_shares
from server.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
CUDA: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.cuda.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
LASTING = {name: service for name, service in SERVICES.items() if service["restart"] != "no"}
SCALED = ("api", "worker", "vllm")
SECRETS = ("EYEPIECE_REDIS_PASSWORD", "EYEPIECE_LLM_API_KEY", "EYEPIECE_GRAFANA_PASSWORD")
MODELS = "/var/lib/eyepiece/models"


def stages() -> dict[str, str]:
    """The Dockerfile's stages: name → instructions."""
    parts = re.split(r"^FROM \S+ AS (\S+)$", DOCKERFILE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def arguments_of(stage: str) -> set[str]:
    """The names that the stage itself declares."""
    return set(re.findall(r"^ARG (\w+)", stages()[stage], re.MULTILINE))


def mounts_of(name: str) -> dict[str, tuple[str, bool]]:
    """Path in the container → named volume or folder ("" for one of its own), and whether it can be written."""
    found = {}
    for volume in SERVICES[name].get("volumes", []):
        source, _, rest = volume.partition(":") if ":" in volume else ("", "", volume)
        path, _, mode = rest.partition(":")
        found[path] = (source, mode != "ro")
    return found


def test_the_services_are_those_of_the_design() -> None:
    assert set(SERVICES) == {"models", *SCALED, "haproxy", "redis", "prometheus", "grafana"}


@pytest.mark.parametrize("name", OURS)
def test_every_command_exists_in_the_command_line(name: str) -> None:
    parse_command_line(OURS[name]["command"])


@pytest.mark.parametrize("name", OURS)
def test_every_image_is_a_stage_that_runs_as_another_user_than_root(name: str) -> None:
    stage = stages()[OURS[name]["build"]["target"]]

    assert (ROOT / OURS[name]["build"]["dockerfile"]).is_file()
    assert re.findall(r"^USER (\S+)$", stage, re.MULTILINE) == ["10001:10001"]
    assert "PYTHONSAFEPATH=1" in stages()["base"]


def test_the_pages_of_a_worker_are_on_the_network_of_the_containers() -> None:
    assert SERVICES["worker"]["environment"]["EYEPIECE_WORKER_HOST"] == "0.0.0.0"
    assert "EYEPIECE_WORKER_HOST=0.0.0.0" in stages()["worker"]


@pytest.mark.parametrize("stage", SCALED)
def test_the_images_own_commands_exist_too(stage: str) -> None:
    command = re.search(r"^CMD \[(.+)\]$", stages()[stage], re.MULTILINE)

    assert command
    parse_command_line(re.findall(r'"([^"]+)"', command[1]))


def test_what_the_dockerfile_copies_is_there_and_not_ignored() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    allowed = (ROOT / ".dockerignore").read_text().splitlines()

    for source in " ".join(copied).split():
        for builds in ("cpu", "cuda"):
            assert list(ROOT.glob(source.replace("$BUILDS", builds).removeprefix("./"))), source
        assert any(f"!{it}" in allowed for it in (source, *map(str, Path(source).parents))), source


def test_every_stage_that_installs_says_where_packages_come_from() -> None:
    """Buildah hands no ARG on to a stage that is made from another; a stage without it would ask PyPI, or get CUDA."""
    installing = {name for name, text in stages().items() if re.search(r"\bpip install --|\buv (pip|build)", text)}

    assert {"tools", "wheels", "sbom", "build-api", "build-worker", "build-vllm"} <= installing
    for name in installing:
        wanted = {"UV_DEFAULT_INDEX"} if "uv " not in stages()[name] else {"UV_DEFAULT_INDEX", "UV_FIND_LINKS"}
        used = set(re.findall(r"\$\{?(\w+)", stages()[name])) & {"BUILDS", "CPU_TORCH", "UV_DEFAULT_INDEX"}
        assert wanted | used <= arguments_of(name), name


def test_nothing_that_fetches_a_frontend_stands_in_the_dockerfile() -> None:
    """A `# syntax` line names an image of others that has to be pulled before anything is built."""
    assert not re.search(r"^#\s*syntax\s*=", DOCKERFILE, re.MULTILINE)


def test_the_path_has_what_makes_users() -> None:
    path = re.search(r"(?<!\w)PATH=(\S+)", stages()["base"])

    assert path
    assert {"/usr/local/sbin", "/usr/sbin", "/sbin"} <= set(path[1].split(":"))


def test_an_image_has_the_torch_that_was_asked_for_or_is_not_built() -> None:
    asked = {name: re.findall(r"require_torch\.sh (\S+) (\S+)", stages()[name]) for name in stages()}

    assert {name: found for name, found in asked.items() if found} == {
        "build-api": [("/opt/eyepiece", "none")],
        "build-worker": [("/opt/eyepiece", '"$BUILDS"')],
        "build-vllm": [("/opt/vllm", '"$BUILDS"')],
    }


def test_only_images_with_cuda_have_a_compiler() -> None:
    compiling = {name for name, text in stages().items() if re.search(r"install .*\bgcc\b", text)}

    assert compiling == {"wheels", "system-cuda"}
    assert "FROM system-${BUILDS} AS worker" in DOCKERFILE
    assert "FROM system-${BUILDS} AS vllm" in DOCKERFILE
    assert "FROM base AS api" in DOCKERFILE


@pytest.mark.parametrize("stage", SCALED)
def test_every_image_lists_its_own_environments(stage: str) -> None:
    environments = re.findall(r"^COPY --from=\S+ (/opt/\w+) /opt/\w+$", stages()[stage], re.MULTILINE)

    assert f"list_components.py eyepiece-{stage} /usr/share/eyepiece {' '.join(environments)}\n" in stages()[stage]


def test_every_environment_of_an_image_is_trimmed() -> None:
    made = re.findall(r"uv venv (/opt/(?!sbom)\w+)", DOCKERFILE)

    assert sorted(re.findall(r"sh deploy/trim_environment\.sh (\S+)", DOCKERFILE)) == sorted(made)


@pytest.mark.parametrize("options", [[], ["small"]])
def test_trimming_takes_what_nothing_reads_and_leaves_the_rest(tmp_path: Path, options: list[str]) -> None:
    packages = tmp_path / "lib/python3.11/site-packages"
    taken = {
        "numpy/tests/a.py",
        "numpy/linalg/tests/__pycache__/b.pyc",
        "pydicom/data/test_files/a.dcm",
        "pydicom/sr/_snomed_dict.py",
        "fontTools/misc/bezierTools.c",
        "fontTools/misc/bezierTools.cpython-311-x86_64-linux-gnu.so",
    }
    kept = {"numpy/testing/c.py", "jinja2/tests.py", "numpy/linalg/d.py", "fontTools/misc/bezierTools.py", "triton/a.c"}
    kept |= {"PIL/_imaging.so", "pillow.libs/libjpeg.so", "pygments/lexers/__init__.py"}
    spared = {"PIL/_avif.so", "pillow.libs/libavif-1.so", "pygments/lexers/ada.py", "numpy/a.pyi", "numpy/core/a.h"}
    for name in taken | kept | spared:
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).touch()
    (tmp_path / ".lock").touch()

    subprocess.run(["sh", ROOT / "deploy/trim_environment.sh", tmp_path, *options], check=True)

    left = kept if options else kept | spared
    assert not (tmp_path / ".lock").exists()
    assert {str(path.relative_to(packages)) for path in packages.rglob("*") if path.is_file()} == left


@pytest.mark.parametrize(
    ("has", "wanted", "code"),
    [
        ("cpu", "cpu", 0),
        ("cuda", "cuda", 0),
        ("cuda", "cpu", 1),
        ("cpu", "cuda", 1),
        ("none", "none", 0),
        ("cpu", "none", 1),
    ],
)
def test_another_torch_than_the_asked_one_ends_the_build(tmp_path: Path, has: str, wanted: str, code: int) -> None:
    packages = tmp_path / "packages"
    if has != "none":
        (packages / "torch").mkdir(parents=True)
        (packages / "torch/__init__.py").write_text("from torch import version")
        (packages / "torch/version.py").write_text(f"cuda = {'13.0' if has == 'cuda' else None!r}")
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {sys.executable} -S "$@"\n')
    python.chmod(0o755)

    ended = subprocess.run(["sh", ROOT / "deploy/require_torch.sh", tmp_path, wanted], capture_output=True, text=True)

    assert ended.returncode == code, ended.stderr
    assert bool(ended.stderr) == bool(code)


def test_images_are_installed_from_the_locks_that_a_checkout_has() -> None:
    named = set(re.findall(r"deploy/locks/[\w$.-]+\.(?:txt|in)", DOCKERFILE))

    files = {name.replace("$BUILDS", builds) for name in named for builds in ("cpu", "cuda")}
    assert len(files) >= 7
    assert all((ROOT / file).is_file() for file in files), files


def test_every_image_is_pinned() -> None:
    images = [service["image"] for name, service in SERVICES.items() if name not in OURS]
    python = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)

    assert python
    for image in (python[1], *images):
        assert re.fullmatch(r"[\w/.-]+:v?\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?", image), image


def test_only_the_load_balancer_is_published_and_on_loopback() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["haproxy"]
    assert all(port.startswith("127.0.0.1:") for port in SERVICES["haproxy"]["ports"])


def test_everything_else_is_on_a_network_without_a_way_out() -> None:
    assert COMPOSE["networks"]["internal"] == {"internal": True}
    elsewhere = {name for name, service in SERVICES.items() if service["networks"] != ["internal"]}

    assert elsewhere == {"haproxy", "models"}  # `models` ends at once, and may have to fetch


def test_archives_are_named_to_the_api_alone_and_reached_by_it_alone() -> None:
    added = yaml.safe_load((ROOT / "deploy/compose.archives.yml").read_text())
    known = {f"EYEPIECE_{name.upper()}" for name in Settings.model_fields}

    assert list(added["services"]) == ["api"]
    assert added["services"]["api"]["networks"] == [*SERVICES["api"]["networks"], *added["networks"]]
    assert set(added["services"]["api"]["environment"]) <= known
    assert added["networks"] == {"out": {}}


def test_the_audit_log_is_off_and_when_on_a_volume_of_its_own_that_the_api_alone_has() -> None:
    added = yaml.safe_load((ROOT / "deploy/compose.audit.yml").read_text())
    (mount,) = added["services"]["api"]["volumes"]
    told = added["services"]["api"]["environment"]
    settings = {name.removeprefix("EYEPIECE_").lower() for name in told}

    assert list(added["services"]) == ["api"]
    assert added["volumes"].keys() == {"audit"}
    assert not added["volumes"].keys() & COMPOSE["volumes"].keys()
    assert mount == f"audit:{told['EYEPIECE_AUDIT_DIR']}"
    assert settings == {"audit_dir", "audit_questions"} <= set(Settings.model_fields)
    assert told["EYEPIECE_AUDIT_QUESTIONS"].endswith(
        f":-{str(Settings.model_fields['audit_questions'].default).lower()}}}"
    )
    assert "AUDIT" not in (ROOT / "docker-compose.yml").read_text()
    made = re.findall(r"eyepiece/(\w+)", stages()["base"])
    assert told["EYEPIECE_AUDIT_DIR"] == f"/var/lib/eyepiece/{made[made.index('audit')]}", "else the volume is root's"


@pytest.mark.parametrize("name", SCALED)
def test_a_service_can_have_several_containers(name: str) -> None:
    assert not {"ports", "container_name", "hostname"} & set(SERVICES[name])


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_without_rights_and_writes_only_where_it_is_said(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "pid", "ipc"} & set(service)


@pytest.mark.parametrize("name", LASTING)
def test_every_lasting_service_is_watched_and_bounded(name: str) -> None:
    limits = LASTING[name]["deploy"]["resources"]["limits"]

    assert LASTING[name]["healthcheck"]["test"]
    assert limits["memory"]
    assert limits["pids"]


def test_only_a_service_that_ends_may_write_models() -> None:
    writers = [name for name in SERVICES if mounts_of(name).get(MODELS, ("", False))[1]]

    assert writers == ["models"]
    assert SERVICES["models"]["restart"] == "no"
    assert all(SERVICES[name]["depends_on"]["models"] for name in SCALED)


def test_vllm_sees_nothing_of_any_tenant_and_the_others_share_one_store() -> None:
    assert mounts_of("vllm") == {MODELS: ("models", False), "/var/lib/eyepiece/cache": ("", True)}
    assert "EYEPIECE_REDIS_URL" not in SERVICES["vllm"]["environment"]
    assert mounts_of("api")["/var/lib/eyepiece/store"] == mounts_of("worker")["/var/lib/eyepiece/store"]
    assert mounts_of("api")["/var/lib/eyepiece/store"] == ("store", True)


def test_every_folder_that_is_mounted_is_made_for_its_user_in_the_image() -> None:
    made = re.findall(r"eyepiece/(\w+)", stages()["base"])
    mounted = {path for name in OURS for path in mounts_of(name)}

    assert mounted <= {f"/var/lib/eyepiece/{name}" for name in made}


def test_every_volume_and_folder_is_there() -> None:
    sources = {source for name in SERVICES for source, _ in mounts_of(name).values() if source}

    assert {source for source in sources if not source.startswith("./")} == set(COMPOSE["volumes"])
    assert all((ROOT / source).is_dir() for source in sources if source.startswith("./"))


def test_questions_reach_vllm_through_the_load_balancer() -> None:
    servers = (ROOT / "deploy" / "haproxy" / "servers-compose.cfg").read_text()

    assert SERVICES["api"]["environment"]["EYEPIECE_LLM_URL"] == "http://haproxy:8101"
    for name in ("api", "vllm"):
        port = SERVICES[name]["command"][-1]
        assert re.search(rf"server-template \w+ 1-\d+ {name}:{port} ", servers)
        assert f":{port}/" in SERVICES[name]["healthcheck"]["test"][-1]


def test_what_streams_may_finish_before_it_is_killed() -> None:
    grace_s = Settings.model_fields["shutdown_grace_s"].default

    for name in (*SCALED, "haproxy"):
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > grace_s
    assert SERVICES["haproxy"]["stop_signal"] == "SIGUSR1"


def test_secrets_have_no_default_and_stand_in_no_argument() -> None:
    text = (ROOT / "docker-compose.yml").read_text()

    for secret in SECRETS:
        assert set(re.findall(rf"\${{{secret}(..)", text)) == {":?"}
        assert secret.removeprefix("EYEPIECE_") in text.split("x-hardened")[0]
        assert not [service for service in SERVICES.values() if secret in str(service.get("command"))]


def test_the_settings_that_are_set_exist() -> None:
    known = {f"EYEPIECE_{name.upper()}" for name in Settings.model_fields}
    ours = [OURS[name].get("environment", {}) for name in OURS]
    gpu = [service.get("environment", {}) for service in CUDA["services"].values()]

    for environment in (*ours, *gpu):
        assert set(environment) <= known


def test_images_for_gpus_say_which_driver_they_need_and_those_for_cpus_none() -> None:
    lock = (ROOT / "deploy" / "locks" / "worker-cuda.txt").read_text()
    (cuda,) = re.findall(r"^cuda-toolkit==(\d+\.\d+)", lock, re.MULTILINE)

    assert f'LABEL eyepiece.nvidia-driver=">={least_driver(cuda)}"' in stages()["system-cuda"]
    assert f'ENV NVIDIA_REQUIRE_CUDA="cuda>={cuda}"' in stages()["system-cuda"]
    assert DOCKERFILE.count("NVIDIA_REQUIRE_CUDA") == DOCKERFILE.count("eyepiece.nvidia-driver") == 1
    assert DOCKERFILE.count("FROM system-${BUILDS} AS ") == 2, "worker and vLLM have it from there"


def default_of(service: str, variable: str) -> float:
    """What the GPU file sets it to, unless the environment does."""
    return float(CUDA["services"][service]["environment"][variable].removeprefix(f"${{{variable}:-").removesuffix("}"))


def test_worker_and_vllm_share_a_gpu_that_has_room_for_both_and_start_in_turn() -> None:
    llm = default_of("vllm", "EYEPIECE_LLM_GPU_MEMORY")
    worker = default_of("worker", "EYEPIECE_WORKER_GPU_MEMORY")

    shares = plan_shares(Settings(llm_gpu_memory=llm, worker_gpu_memory=worker), workers=1, gpus=1, llm_gpus=1)
    assert (shares.llm, shares.worker) == (llm, worker)
    assert CUDA["services"]["vllm"]["depends_on"] == {"worker": {"condition": "service_healthy"}}


def test_what_is_compiled_for_a_gpu_outlives_its_container() -> None:
    for name, folder in (("worker", "compiled"), ("vllm", "cache")):
        (volume,) = CUDA["services"][name]["volumes"]
        source, path = volume.split(":")
        assert path == f"/var/lib/eyepiece/{folder}" in mounts_of(name), "it takes the place of one that is there"
        assert source in CUDA["volumes"]
    assert len(CUDA["volumes"]) == 2, "what lies there is executed, so nobody shares it"


def test_as_many_gpus_are_reserved_as_the_language_model_is_split_over() -> None:
    (device,) = CUDA["services"]["vllm"]["deploy"]["resources"]["reservations"]["devices"]

    assert device["count"] == SERVICES["vllm"]["environment"]["EYEPIECE_TENSOR_PARALLEL_SIZE"]
    assert device["count"] == "${EYEPIECE_TENSOR_PARALLEL_SIZE:-1}"


def test_the_tag_of_an_image_says_which_builds_it_has() -> None:
    for name, service in OURS.items():
        builds = "-${EYEPIECE_BUILDS:-cpu}" if "args" in service["build"] else ""
        image = f"eyepiece-{service['build']['target']}:${{EYEPIECE_TAG:-local}}"
        assert service["image"] == image + builds
        if builds:
            assert CUDA["services"][name]["image"] == f"{image}-cuda"


def test_the_gpu_file_changes_services_that_exist_into_what_the_dockerfile_builds() -> None:
    assert set(CUDA["services"]) == {name for name in OURS if "args" in OURS[name]["build"]}
    assert {service["build"]["args"]["BUILDS"] for service in CUDA["services"].values()} == {"cuda"}
    assert DOCKERFILE.count("cuda|cpu)") == 2


def test_the_second_model_has_copies_of_the_first_ones_services_that_know_both() -> None:
    second: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "deploy/compose.second-model.yml").read_text())[
        "services"
    ]
    known = {f"EYEPIECE_{name.upper()}" for name in Settings.model_fields}
    told = {name: service["environment"] for name, service in second.items() if "environment" in service}
    servers = (ROOT / "deploy" / "haproxy" / "servers-second-model.cfg").read_text()

    for name in ("worker", "vllm"):
        copy, first = dict(second[f"{name}-second"]), {**SERVICES[name]}
        assert {**copy, "environment": 0} == {
            key: value for key, value in {**first, "environment": 0}.items() if key != "build"
        }
    assert all(set(environment) <= known for environment in told.values())
    models = {name: environment.get("EYEPIECE_MODELS") for name, environment in told.items() if name != "vllm-second"}
    (said,) = set(models.values())
    assert set(models) == {"api", "worker", "worker-second"}
    filled = re.sub(r"\$\{EYEPIECE_MODEL:-(\w+)\}", r"\1", said).replace(
        "${EYEPIECE_SECOND_MODEL:?name it in .env}", "b"
    )
    assert [it.url for it in Settings(models=filled).served_models] == ["http://haproxy:8101", "http://haproxy:8111"]
    assert "bind :8111" in servers
    assert "vllm-second:8101" in servers
    assert second["haproxy"]["command"] == [
        *SERVICES["haproxy"]["command"],
        "-f",
        "/etc/eyepiece/servers-second-model.cfg",
    ]
