"""What `eyepiece up` is going to start: each part knows the others, and secrets are in no argument."""

import json
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr
from supervised import BECOME_READY, FOREVER
from supervised import component as process

from server.commands import up as up_module
from server.commands.environments import VllmEnvironment
from server.commands.gpu_shares import plan_shares
from server.commands.outcome import CommandError, ExitCode
from server.commands.up import (
    Plan,
    UpOptions,
    http_probe,
    redis_story,
    refuse_unusable_ports,
    shares_here,
    start_in_turn,
    up,
)
from server.machine.redis_server import free_loopback_port
from server.machine.supervise import Component, ComponentError, RestartPolicy, Supervisor
from server.settings import Settings
from server.storage.private_files import keep_secret


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    for name in ("EYEPIECE_REDIS_URL", "EYEPIECE_LLM_URL", "EYEPIECE_LLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return Plan(Settings(data_dir=tmp_path / "data", port=free_loopback_port()), tmp_path / "logs")


@pytest.fixture
def silent_server() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_every_part_knows_where_redis_and_vllm_are(plan: Plan) -> None:
    redis, (vllm,) = plan.redis(), plan.llm()
    workers, api = plan.encoder_workers(2), plan.api()

    for component in (*workers, api):
        assert component.environment["EYEPIECE_REDIS_URL"] == plan.environment["EYEPIECE_REDIS_URL"]
        assert component.environment["EYEPIECE_LLM_URL"].endswith(vllm.command[-1])
        assert component.environment["EYEPIECE_LLM_API_KEY"] == vllm.environment["EYEPIECE_LLM_API_KEY"]
        assert component.environment["PYTHONSAFEPATH"] == "1"
    assert [component.name for component in (redis, vllm, *workers, api)] == [
        "redis",
        "vllm",
        "worker-1",
        "worker-2",
        "api",
    ]
    assert len({worker.environment["EYEPIECE_WORKER_PORT"] for worker in workers}) == 2


def test_no_secret_is_an_argument(plan: Plan) -> None:
    components = [plan.redis(), *plan.llm(), *plan.encoder_workers(1), plan.api()]
    arguments = " ".join(part for component in components for part in component.command)

    assert plan.environment["EYEPIECE_LLM_API_KEY"] not in arguments
    assert plan.environment["EYEPIECE_REDIS_URL"] not in arguments


def test_redis_gets_nothing_of_the_environment_but_what_it_needs(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    assert set(plan.redis().environment) <= {"PATH", "LANG", "TZ"}


def test_a_vllm_that_is_named_is_not_started(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", llm_url="http://vllm:8101")

    assert Plan(settings, tmp_path / "logs").llm() == []


def test_several_models_have_a_vllm_each_and_everybody_knows_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EYEPIECE_LLM_URL", raising=False)
    monkeypatch.setattr(up_module, "visible_gpus", lambda: ())
    plan = Plan(Settings(data_dir=tmp_path / "data", models="demo,far=http://far:1,tiny"), tmp_path / "logs")

    vllms = plan.llm()

    assert {it.name: it.environment["EYEPIECE_MODEL"] for it in vllms} == {"vllm-demo": "demo", "vllm-tiny": "tiny"}
    ports = [it.command[-1] for it in vllms]
    models = f"demo=http://127.0.0.1:{ports[0]},far=http://far:1,tiny=http://127.0.0.1:{ports[1]}"
    assert {it.environment["EYEPIECE_MODELS"] for it in (plan.api(), *plan.encoder_workers(1))} == {models}
    with monkeypatch.context() as child:
        for name, value in vllms[1].environment.items():
            child.setenv(name, value)
        assert Settings().llm_model == "tiny"


def test_vllms_of_several_models_have_gpus_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EYEPIECE_LLM_URL", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    monkeypatch.setattr(up_module, "visible_gpus", lambda: ("GPU",) * 4)
    settings = Settings(data_dir=tmp_path / "data", models="a,b", tensor_parallel_size=2, llm_port=18300)

    vllms = Plan(settings, tmp_path / "logs").llm()

    assert [it.environment["CUDA_VISIBLE_DEVICES"] for it in vllms] == ["4,5", "6,7"]
    assert [it.command[-1] for it in vllms] == ["18300", "18301"]


def test_more_models_than_gpus_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EYEPIECE_LLM_URL", raising=False)
    monkeypatch.setattr(up_module, "visible_gpus", lambda: ("GPU",))
    found = VllmEnvironment(tmp_path, False, "0.32.0", "2.13.0", has_plugin=True, cuda_version="13.0")
    monkeypatch.setattr(up_module, "read_vllm_environment", lambda _: found)

    with pytest.raises(CommandError, match="2 models need 2 GPUs"):
        shares_here(Settings(data_dir=tmp_path, models="a,b"), 1)


def test_a_probe_is_not_held_up_by_a_server_that_does_not_answer(silent_server: int) -> None:
    assert not http_probe("127.0.0.1", silent_server, "/readyz")()
    assert not http_probe("127.0.0.1", free_loopback_port(), "/readyz")()


# Values that are no default, for every setting; a new one has to be added, and honoured or explained.
OTHERWISE: dict[str, str] = {
    "host": "127.0.0.2",
    "port": "18000",
    "worker_host": "127.0.0.3",
    "worker_port": "18100",
    "redis_port": "18200",
    "llm_port": "18300",
    "redis_url": "redis://elsewhere:6379/0",
    "llm_url": "http://elsewhere:8101",
    "store_url": "s3://bucket/prefix",
    "model": "wsi-llava",
    "device": "cuda:1",
    "worker_gpu_memory": "0.3",
    "llm_gpu_memory": "0.6",
    "tile_dtype": "bfloat16",
    "tile_reduction": "dct",
    "slide_attention": "flash-attn",
    "log_level": "debug",
    "retain_days": "30",
    "tenant_retain_days": '{"ward": 7}',
    "tenant_quotas": '{"ward": {"stored_bytes": 7}}',
    "rate_limits": '{"requests": 7}',
    "tenant_rate_limits": '{"ward": {"questions": 7}}',
    "caller_rate_limits": '{"upload_bytes": 7}',
    "webhooks": json.dumps(
        [{"name": "lis", "tenant": "ward", "url": "https://lis.example/told", "secrets": [f"whsec_{'0' * 43}="]}]
    ),
    "dicomweb_archives": '[{"name": "pacs", "tenants": ["ward"], "url": "https://pacs.example/dicom-web"}]',
    "oidc_providers": '[{"issuer": "https://id.example", "audience": "eyepiece", "tenant": "ward"}]',
}


def value_of(name: str, default: object, folder: Path) -> str:
    if name in OTHERWISE:
        return OTHERWISE[name]
    if name.endswith(("_dir", "_file")):
        return str(folder / name)
    if isinstance(default, bool):
        return str(not default).lower()
    if isinstance(default, int | float):
        return str(default + 7)
    return f"another-{name}"


def everything(plan: Plan, workers: int = 1) -> list[Component]:
    """What is started, in order."""
    redis = [] if plan.settings.redis_is_external else [plan.redis()]
    shares = plan_shares(plan.settings, workers, gpus=2, llm_gpus=1)
    return [*redis, *(component for group in plan.start_order(shares) for component in group)]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_reaches_the_process_that_it_is_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in [other for other in os.environ if other.startswith("EYEPIECE_")]:
        monkeypatch.delenv(other)
    monkeypatch.setenv("EYEPIECE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv(f"EYEPIECE_{name.upper()}", value_of(name, Settings.model_fields[name].default, tmp_path))
    settings = Settings()
    assert getattr(settings, name) != Settings.model_fields[name].default
    components = {component.name: component for component in everything(Plan(settings, tmp_path / "logs"))}

    if name == "redis_port":
        assert "port 18200\n" in (tmp_path / "data" / "redis" / "redis.conf").read_text()
        assert urlsplit(components["api"].environment["EYEPIECE_REDIS_URL"]).port == 18200
    if name == "llm_port":
        assert components["vllm"].command[-2:] == ("--port", "18300")
        assert components["api"].environment["EYEPIECE_LLM_URL"] == "http://127.0.0.1:18300"
    if name in ("shutdown_grace_s", "drain_notice_s"):
        assert components["api"].stop_grace_s >= settings.shutdown_grace_s + settings.drain_notice_s
    for ours in ("worker-1", "api"):
        with monkeypatch.context() as child:
            for variable, value in components[ours].environment.items():
                child.setenv(variable, value)
            assert getattr(Settings(), name) == getattr(settings, name)
            assert name in ("redis_url",) or Settings().redis_is_external
            assert name in ("llm_url",) or Settings().llm_is_external


def test_workers_have_ports_in_a_row_from_the_one_that_is_set(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, worker_port=18100)

    workers = Plan(settings, tmp_path / "logs").encoder_workers(3)

    assert [it.environment["EYEPIECE_WORKER_PORT"] for it in workers] == ["18100", "18101", "18102"]


@pytest.mark.parametrize(
    ("settings", "workers", "said"),
    [
        ({"redis_url": "redis://elsewhere/0", "redis_port": 18200}, 1, "EYEPIECE_REDIS_URL names another one"),
        ({"llm_url": "http://elsewhere", "llm_port": 18300}, 1, "EYEPIECE_LLM_URL names another one"),
        ({"worker_port": 65530}, 7, "past the last port"),
        ({"worker_port": 18298, "llm_port": 18300}, 3, "EYEPIECE_LLM_PORT and EYEPIECE_WORKER_PORT both ask for port"),
        ({"port": 18200, "redis_port": 18200}, 1, "EYEPIECE_PORT and EYEPIECE_REDIS_PORT both ask for port 18200"),
    ],
)
def test_ports_that_cannot_be_honoured_are_refused(
    tmp_path: Path, settings: dict[str, Any], workers: int, said: str
) -> None:
    mine = {"port": free_loopback_port(), **settings}
    with pytest.raises(CommandError, match=said) as refused:
        refuse_unusable_ports(Settings(data_dir=tmp_path, **mine), workers)

    assert refused.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize("name", ["redis_port", "llm_port", "worker_port"])
def test_a_port_that_is_taken_is_refused_with_its_setting(tmp_path: Path, silent_server: int, name: str) -> None:
    settings = Settings(data_dir=tmp_path, port=free_loopback_port()).model_copy(update={name: silent_server})

    with pytest.raises(CommandError, match=f"port {silent_server}.*choose another one in EYEPIECE_{name.upper()}"):
        refuse_unusable_ports(settings, 1)


def test_the_key_of_vllm_lies_in_a_private_file_unless_one_is_set(plan: Plan, tmp_path: Path) -> None:
    plan.llm()
    key = plan.environment["EYEPIECE_LLM_API_KEY"]
    assert plan.llm_key_file.read_text() == key
    assert stat.S_IMODE(plan.llm_key_file.stat().st_mode) == 0o600

    again = Plan(plan.settings, tmp_path / "logs")
    again.llm()
    assert again.environment["EYEPIECE_LLM_API_KEY"] == key

    own = Plan(plan.settings.model_copy(update={"llm_api_key": SecretStr("own")}), tmp_path / "logs")
    own.llm()
    assert own.environment["EYEPIECE_LLM_API_KEY"] == "own"


def test_an_empty_secret_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "password").touch()

    assert len(keep_secret(tmp_path / "password")) > 40


@pytest.mark.parametrize("name", ["redis", "llm"])
def test_an_address_that_is_set_to_nothing_names_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"EYEPIECE_{name.upper()}_URL", "")

    assert not getattr(Settings(), f"{name}_is_external")


def test_a_redis_that_fails_on_its_files_gives_no_advice_to_cut_them(plan: Plan) -> None:
    folder = plan.settings.data_dir / "redis"
    (folder / "appendonlydir").mkdir(parents=True)
    base = "appendonly.aof.1.incr.aof"
    (folder / "appendonlydir" / "appendonly.aof.manifest").write_text(f"file {base} seq 1 type i\n")
    (folder / "appendonlydir" / base).write_text("*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\nthis is damaged\r\n")
    component = plan.redis()
    component.log.parent.mkdir(exist_ok=True)

    with Supervisor(lambda change: None, RestartPolicy(first_delay_s=0.01)) as supervisor:
        supervisor.start(component)
        with pytest.raises(ComponentError) as failed:
            supervisor.wait_until_ready(["redis"], timeout_s=60)

    assert "check-aof" in str(failed.value)
    story = redis_story(failed.value, plan.settings.data_dir)
    assert "--fix" not in story
    assert f"Copy {folder} before anything else" in story
    assert base in story, "what is wrong is still said"


def names(groups: list[list[Component]]) -> list[list[str]]:
    return [[component.name for component in group] for group in groups]


def test_on_a_shared_gpu_workers_take_their_memory_before_vllm_measures(plan: Plan) -> None:
    groups = plan.start_order(plan_shares(plan.settings, 2, gpus=1, llm_gpus=1))

    assert names(groups) == [["worker-1", "worker-2"], ["vllm", "api"]], "and the API still stops first"
    (one, other), (vllm, _) = groups
    assert vllm.environment["EYEPIECE_LLM_GPU_MEMORY"] == "0.75"
    assert one.environment["EYEPIECE_WORKER_GPU_MEMORY"] == other.environment["EYEPIECE_WORKER_GPU_MEMORY"] == "0.1"


def test_where_vllm_has_its_gpu_alone_nobody_waits(plan: Plan) -> None:
    (group,) = plan.start_order(plan_shares(plan.settings, 2, gpus=3, llm_gpus=1))

    assert names([group]) == [["vllm", "worker-1", "worker-2", "api"]]
    assert [it.environment["EYEPIECE_DEVICE"] for it in group[1:3]] == ["cuda:1", "cuda:2"]
    assert group[0].environment["EYEPIECE_LLM_GPU_MEMORY"] == "0.9"
    assert group[1].environment["EYEPIECE_WORKER_GPU_MEMORY"] == "0"


def test_a_group_is_started_when_the_one_before_is_ready(tmp_path: Path) -> None:
    started: list[list[str]] = []

    def is_ready() -> bool:  # at the third look
        started.append([running.name for running in supervisor.components()])
        return len(started) == 3

    worker = replace(process(tmp_path, "worker", FOREVER), is_ready=is_ready)
    vllm = process(tmp_path, "vllm", BECOME_READY + FOREVER)
    with Supervisor(lambda change: None) as supervisor:
        assert start_in_turn(supervisor, [[worker], [vllm]])
        assert [running.name for running in supervisor.components()] == ["worker", "vllm"]

    assert started == [["worker"]] * 3


@pytest.mark.parametrize(("cuda", "gpus", "llm"), [("13.0", 1, 0.75), ("13.0", 0, 0.9), (None, 1, 0.9)])
def test_who_shares_is_read_from_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: str | None, gpus: int, llm: float
) -> None:
    found = VllmEnvironment(tmp_path, cuda is None, "0.32.0", "2.13.0", has_plugin=True, cuda_version=cuda)
    monkeypatch.setattr("server.commands.up.read_vllm_environment", lambda python: found)
    monkeypatch.setattr("server.commands.up.visible_gpus", lambda: ("NVIDIA H100",) * gpus)

    assert shares_here(Settings(), 1).llm == llm
    assert shares_here(Settings(llm_url="http://elsewhere:8101"), 1).llm == 0.9


def test_workers_get_the_gpus_that_vllm_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = VllmEnvironment(tmp_path, False, "0.32.0", "2.13.0", has_plugin=True, cuda_version="13.0")
    monkeypatch.setattr("server.commands.up.read_vllm_environment", lambda python: found)
    monkeypatch.setattr("server.commands.up.visible_gpus", lambda: ("NVIDIA H100",) * 4)

    shares = shares_here(Settings(tensor_parallel_size=2), 2)

    assert (shares.devices, shares.is_shared) == (("cuda:2", "cuda:3"), False)


def test_a_model_that_cannot_be_split_so_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.commands.up.require_vllm_unless_elsewhere", lambda settings: None)
    monkeypatch.setattr("server.commands.up.builds_of", lambda python: "cpu")
    monkeypatch.setattr("server.commands.up._supervise", lambda *_: pytest.fail("it was started"))
    settings = Settings(data_dir=tmp_path / "data", port=free_loopback_port(), device="cpu", tensor_parallel_size=4)

    with pytest.raises(CommandError, match="6 attention heads cannot be shared out evenly: choose one of 1, 2, 3, 6"):
        up(settings, UpOptions())
