"""A real vLLM server for tests: started from the second environment, on a free port, with a key of its own."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

VLLM_PYTHON = Path(__file__).parents[2] / ".venv-vllm/bin/python"
# A loaded two-core machine needs minutes; a server that ends instead is noticed at once.
START_DEADLINE_S = 300
STOP_DEADLINE_S = 30

FLAGS = (
    # fp32 and no compilation: answers are compared token for token with transformers.
    *("--dtype", "float32", "--enforce-eager"),
    *("--enable-mm-embeds", "--limit-mm-per-prompt", '{"image":1}'),
    # Small blocks, so that the prompts of a tiny model fill several and prefix caching is exercised.
    *("--enable-prefix-caching", "--block-size", "32", "--enable-prompt-tokens-details"),
    *("--logits-processors", "eyepiece_vllm.answer_processors:HostAnswerProcessor"),
)
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    # GiB for a model of 3 MB; the default takes a share of the machine.
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
    # The worker runs within the engine process: one process and 12 s less on two cores.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # As `eyepiece llm` sets it on a CPU: the processor above is written for this model runner.
    "VLLM_USE_V2_MODEL_RUNNER": "0",
}


@dataclass(frozen=True)
class VllmServer:
    """A running server; `log` is everything its processes wrote."""

    url: str
    key: str
    model: str
    log: Path

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """One request with the key; the model's name is filled in."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx.post(f"{self.url}{path}", json={"model": self.model, **body}, headers=headers, timeout=120)

    def chat(self, messages: list[dict[str, Any]], **fields: Any) -> httpx.Response:
        """A greedy chat completion of at most 24 tokens, unless told otherwise."""
        return self.post("/v1/chat/completions", {"messages": messages, "temperature": 0, "max_tokens": 24, **fields})


@contextmanager
def running_vllm(
    llm_folder: Path, model: str, scratch: Path, *flags: str, key: str | None = None
) -> Iterator[VllmServer]:
    """Starts a server, waits until it is healthy, and stops its whole process group at the end; `flags` come last.

    It has a key that nobody knows, unless told otherwise; "" for none.
    """
    served = ("--model", str(llm_folder), "--served-model-name", model)
    arguments = ("-m", "vllm.entrypoints.openai.api_server", *served, *FLAGS, *flags)
    server = VllmServer(
        f"http://127.0.0.1:{_free_port()}", secrets.token_hex(32) if key is None else key, model, scratch / "vllm.log"
    )
    needed = ("--api-key", server.key) if server.key else ()
    with _running([str(VLLM_PYTHON), *arguments, *needed], os.environ | ENVIRONMENT, server):
        yield server


@contextmanager
def running_eyepiece_llm(model: str, scratch: Path, **settings: str) -> Iterator[VllmServer]:
    """The same by `eyepiece llm`, with these settings beside its own, in a data folder of its own."""
    server = VllmServer(f"http://127.0.0.1:{_free_port()}", secrets.token_hex(32), model, scratch / "vllm.log")
    ours = {"EYEPIECE_LLM_API_KEY": server.key, "EYEPIECE_VLLM_PYTHON": str(VLLM_PYTHON), "PYTHONSAFEPATH": "1"}
    environment = os.environ | ours | {"OMP_NUM_THREADS": "1"} | settings
    command = [sys.executable, "-m", "server", "llm", "--data-dir", str(scratch), "--model", model]
    with _running(command, environment, server):
        yield server


@contextmanager
def _running(command: list[str], environment: dict[str, str], server: VllmServer) -> Iterator[None]:
    address = ("--host", "127.0.0.1", "--port", server.url.rpartition(":")[2])
    with server.log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *address],
            cwd=server.log.parent,  # not the repository: vLLM's environment must find only what is installed in it
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_until_healthy(process, server)
            yield
        finally:
            _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(process: subprocess.Popen[bytes], server: VllmServer) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while not _is_healthy(server):
        try:
            process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            assert time.monotonic() < deadline, f"vLLM did not start:\n{server.log.read_text()[-4000:]}"
        else:
            raise AssertionError(f"vLLM ended at its start:\n{server.log.read_text()[-4000:]}")


def _is_healthy(server: VllmServer) -> bool:
    try:
        return httpx.get(f"{server.url}/health", timeout=5).is_success
    except httpx.TransportError:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=STOP_DEADLINE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
