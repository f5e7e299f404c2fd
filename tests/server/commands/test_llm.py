"""How `eyepiece llm` starts vLLM: what the manifest decides, and what never stands in an argument."""

import os
from pathlib import Path

import pytest

from model_store.installed import InstalledModel
from model_store.manifest import packaged_manifest
from server.commands.llm import Listen, become_vllm, trace_arguments, vllm_arguments, vllm_environment
from server.settings import Settings

HERE = Listen("127.0.0.1", 8101)


@pytest.fixture
def model(tmp_path: Path) -> InstalledModel:
    return InstalledModel(tmp_path / "demo", packaged_manifest("demo"), {})


def value_of(option: str, arguments: list[str]) -> str:
    return arguments[arguments.index(option) + 1]


def environment(base: dict[str, str], tmp_path: Path, key: str = "") -> dict[str, str]:
    return vllm_environment(base, tmp_path / ".venv-vllm" / "bin" / "python", tmp_path / "data", key)


def test_the_manifest_decides_dtype_context_and_name(model: InstalledModel) -> None:
    arguments = vllm_arguments(model, HERE, "cpu", 0.9)

    spec = model.manifest.llm
    assert value_of("--dtype", arguments) == spec.dtype
    assert value_of("--max-model-len", arguments) == str(spec.max_model_len)
    assert value_of("--served-model-name", arguments) == spec.served_name
    assert Path(value_of("--model", arguments)) == model.llm_folder.resolve()


def test_slides_are_accepted_and_counted(model: InstalledModel) -> None:
    arguments = vllm_arguments(model, HERE, "cuda", 0.9)

    assert {"--enable-mm-embeds", "--enable-prefix-caching", "--enable-prompt-tokens-details"} <= set(arguments)
    assert value_of("--limit-mm-per-prompt", arguments) == '{"image":1}'


def test_spans_go_where_the_others_go(tmp_path: Path) -> None:
    assert trace_arguments("") == []
    assert trace_arguments("http://collector:4318/") == ["--otlp-traces-endpoint", "http://collector:4318/v1/traces"]
    assert environment({}, tmp_path)["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] == "http/protobuf"


def test_compiling_is_for_gpus_only(model: InstalledModel) -> None:
    assert "--enforce-eager" in vllm_arguments(model, HERE, "cpu", 0.9)
    assert "--enforce-eager" not in vllm_arguments(model, HERE, "cuda", 0.9)


@pytest.mark.parametrize(("builds", "processor"), [("cpu", "HostAnswerProcessor"), ("cuda", "DeviceAnswerProcessor")])
def test_the_logits_processor_is_the_one_of_the_model_runner(
    model: InstalledModel, builds: str, processor: str
) -> None:
    named = value_of("--logits-processors", vllm_arguments(model, HERE, builds, 0.9))

    assert named == f"eyepiece_vllm.answer_processors:{processor}"


def test_nothing_turns_request_logs_or_remote_code_on(model: InstalledModel) -> None:
    arguments = vllm_arguments(model, HERE, "cuda", 0.9)

    assert not [it for it in arguments if "log-requests" in it or "log-outputs" in it or "trust" in it]
    assert "--disable-uvicorn-access-log" in arguments


def test_the_key_is_in_the_environment_and_other_secrets_are_not(tmp_path: Path) -> None:
    secrets = {
        "EYEPIECE_REDIS_URL": "redis://:secret@127.0.0.1",
        "EYEPIECE_LLM_API_KEY": "llm-key",
        "EYEPIECE_SECRETS_DIR": "/run/secrets",
    }

    found = environment({**secrets, "HOME": "/home/x"}, tmp_path, "llm-key")

    assert found["VLLM_API_KEY"] == "llm-key"
    assert found["HOME"] == "/home/x"
    assert not set(secrets) & set(found)
    assert "VLLM_API_KEY" not in environment({}, tmp_path)


def test_the_model_runner_is_not_left_to_vllm(tmp_path: Path) -> None:
    assert environment({}, tmp_path)["VLLM_USE_V2_MODEL_RUNNER"] in ("0", "1")


def test_it_is_offline_silent_and_loads_our_plugin_only(tmp_path: Path) -> None:
    found = environment({}, tmp_path)

    assert found["HF_HUB_OFFLINE"] == found["VLLM_NO_USAGE_STATS"] == found["DO_NOT_TRACK"] == "1"
    assert found["VLLM_PLUGINS"] == "eyepiece"
    assert found["VLLM_MAX_EMBED_DECODE_BYTES"] == str(64 * 2**20)
    assert Path(found["VLLM_CACHE_ROOT"]).is_relative_to(tmp_path / "data")


def test_vllm_takes_the_share_that_it_is_told(model: InstalledModel) -> None:
    assert value_of("--gpu-memory-utilization", vllm_arguments(model, HERE, "cuda", 0.75)) == "0.75"
    assert "--gpu-memory-utilization" not in vllm_arguments(model, HERE, "cpu", 0.75)


@pytest.fixture
def cuda_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("server.commands.llm.builds_of", lambda python: "cuda")
    monkeypatch.setattr("server.commands.llm.DEFAULT_CUDA_HOME", str(tmp_path / "none"))


def nvcc_in(folder: Path) -> Path:
    """An executable of that name."""
    folder.mkdir(parents=True)
    (folder / "nvcc").touch(mode=0o755)
    return folder


@pytest.mark.usefixtures("cuda_build")
def test_what_is_compiled_for_a_gpu_is_kept_in_the_data_folder(tmp_path: Path) -> None:
    caches = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE", "CUDA_CACHE_PATH")

    found = environment({"TRITON_CACHE_DIR": "/mine"}, tmp_path)

    assert found["TRITON_CACHE_DIR"] == "/mine"
    assert all(Path(found[name]).is_relative_to(tmp_path / "data" / "cache") for name in caches[1:])
    assert len({found[name] for name in caches}) == len(caches)


@pytest.mark.usefixtures("cuda_build")
def test_without_a_compiler_for_cuda_flashinfers_sampler_is_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = {"PATH": str(tmp_path)}
    home = nvcc_in(tmp_path / "cuda" / "bin").parent

    assert environment(bare, tmp_path)["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert environment({**bare, "VLLM_USE_FLASHINFER_SAMPLER": "1"}, tmp_path)["VLLM_USE_FLASHINFER_SAMPLER"] == "1"
    for name in ("CUDA_HOME", "CUDA_PATH"):
        assert "VLLM_USE_FLASHINFER_SAMPLER" not in environment({**bare, name: str(home)}, tmp_path)
        assert "VLLM_USE_FLASHINFER_SAMPLER" in environment({**bare, name: str(tmp_path / "other")}, tmp_path)
    assert "VLLM_USE_FLASHINFER_SAMPLER" not in environment({"PATH": f"/none:{home}/bin"}, tmp_path)
    monkeypatch.setattr("server.commands.llm.DEFAULT_CUDA_HOME", str(home))
    assert "VLLM_USE_FLASHINFER_SAMPLER" not in environment(bare, tmp_path)


def test_on_a_cpu_nothing_of_it_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.commands.llm.builds_of", lambda python: "cpu")

    assert not {"TRITON_CACHE_DIR", "VLLM_USE_FLASHINFER_SAMPLER"} & set(environment({}, tmp_path))


@pytest.mark.parametrize("size", [1, 2])
def test_the_number_of_devices_is_handed_on_before_what_the_caller_adds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr("server.commands.llm.require_vllm", lambda python, device: python)
    monkeypatch.setattr("server.commands.llm.builds_of", lambda python: "cpu")
    monkeypatch.setattr("server.commands.llm.own_cpus", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(os, "execve", lambda python, command, variables: started.append((command, variables)))
    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND", raising=False)
    monkeypatch.chdir(tmp_path)

    become_vllm(Settings(data_dir=tmp_path, tensor_parallel_size=size), HERE, ["--max-num-seqs", "4"])

    [(command, variables)] = started
    assert command[-2:] == ["--max-num-seqs", "4"]
    if size == 1:
        assert "--tensor-parallel-size" not in command
        assert "VLLM_CPU_OMP_THREADS_BIND" not in variables
    else:
        assert value_of("--tensor-parallel-size", command) == "2"
        assert variables["VLLM_CPU_OMP_THREADS_BIND"] == "0,1|2,3"
