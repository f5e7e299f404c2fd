"""`make two-models`: two models behind two real vLLMs on one machine. Takes some five minutes on two cores."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from haproxy_process import wait_until
from running_server import RunningServer, ask, running_server, upload
from untrained_model import changed_manifest, untrained_model

from server.machine.redis_server import free_loopback_port

pytestmark = pytest.mark.vllm
ROOT = Path(__file__).resolve().parents[2]
QUESTION = "What kind of tissue is this?"


def install_tiny(data_dir: Path) -> None:
    """A second model, with weights and an encoder of its own."""
    changes = [('name = "demo"', 'name = "tiny"'), ("slide_tokens = 32", "slide_tokens = 16")]
    untrained_model(data_dir / "models", seed=1, text=changed_manifest(*changes))


@pytest.fixture
def two_models(tmp_path: Path) -> Iterator[RunningServer]:
    install_tiny(tmp_path / "data")
    with running_server(tmp_path / "data", tmp_path / "up.log", "demo", "tiny") as running:
        yield running


def engine_of(server: RunningServer, model: str) -> psutil.Process:
    """The vLLM that `eyepiece up` started for a model that is not the default, of which it alone is told."""
    for process in server.process.children():
        if process.environ().get("EYEPIECE_MODEL") == model:
            return process
    raise AssertionError(f"no vLLM of {model} runs")


def test_both_answer_and_one_goes_on_while_the_others_vllm_is_started_again(
    two_models: RunningServer, sample_path: Path
) -> None:
    with two_models.client() as client:
        slide = upload(client, sample_path)
        client.post(f"/v1/slides/{slide['id']}/encode", json={"encoder": "tiny"})
        with client.stream("GET", f"/v1/slides/{slide['id']}/events", params={"model": "tiny"}) as events:
            assert [line for line in events.iter_lines() if line.startswith("event: ")][-1] == "event: ready"
        first = ask(client, slide["id"], QUESTION, temperature=0)
        other = ask(
            client, slide["id"], QUESTION, temperature=0, model="tiny", conversation_id=first["conversation_id"]
        )
        assert [it["usage"]["slide_tokens"] for it in (first, other)] == [32, 16]
        assert first["answer"] != other["answer"]

        engine_of(two_models, "tiny").send_signal(signal.SIGKILL)
        wait_until(lambda: client.get("/readyz").json()["models"]["tiny"] == "unavailable", 120)
        ready = client.get("/readyz")
        again = ask(client, slide["id"], QUESTION, temperature=0)
        assert (ready.status_code, ready.json()["models"]["demo"]) == (200, "ok")
        assert again["answer"] == first["answer"]
        wait_until(lambda: client.get("/readyz").json()["models"]["tiny"] == "ok", 600)
        assert ask(client, slide["id"], QUESTION, temperature=0, model="tiny")["model"] == "tiny"


def test_make_demo_asks_both(tmp_path: Path) -> None:
    install_tiny(tmp_path / "data")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}

    ran = subprocess.run(
        ["make", "demo", "ONCE=1", f"PORT={free_loopback_port()}", f"DATA_DIR={tmp_path / 'data'}"],
        cwd=ROOT,
        env={**environment, "EYEPIECE_MODELS": "demo,tiny"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len(re.findall(r"^.+  \| truth: .+ [✓✗]$", ran.stdout, re.MULTILINE)) == 4
    assert "\n> (tiny) What is the growth pattern?" in ran.stdout
