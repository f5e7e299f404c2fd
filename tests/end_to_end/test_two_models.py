"""Two models side by side, through every process but vLLM: the encoders are real, what answers is a stand-in for each.

`make two-models` runs this, and the same with two real ones (test_two_vllms.py).
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from chaos import stand_in_vllm
from chaos.stand_in_vllm import right_answer
from haproxy_process import wait_until
from running_server import RunningServer, ask, running_server, upload
from untrained_model import changed_manifest, untrained_model

from encoders.embedding_file import from_bytes
from server.commands.up import http_probe
from server.machine.redis_server import free_loopback_port
from server.machine.supervise import die_with_parent
from synthetic.write_slide import write_sample_slide

TESTS = Path(__file__).resolve().parents[1]
QUESTION = "What kind of tissue is this?"


@pytest.fixture(scope="module")
def vllms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[str, subprocess.Popen[bytes]]]]:
    """A stand-in for each model's vLLM: its address and its process."""
    environment = {**os.environ, "PYTHONPATH": f"{TESTS / 'support'}:{TESTS}:{TESTS.parent}"}
    with ExitStack() as stack:
        started = {}
        for model in ("demo", "tiny"):
            port = free_loopback_port()
            command = [sys.executable, "-m", stand_in_vllm.__name__, str(port)]
            process = subprocess.Popen(command, env=environment, preexec_fn=die_with_parent(9))
            stack.callback(process.wait)
            stack.callback(process.kill)
            wait_until(http_probe("127.0.0.1", port, "/health"), 120)
            started[model] = (f"http://127.0.0.1:{port}", process)
        yield started


@pytest.fixture(scope="module")
def two_models(
    tmp_path_factory: pytest.TempPathFactory, vllms: dict[str, tuple[str, subprocess.Popen[bytes]]]
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("two")
    untrained_model(folder / "data/models", seed=1, text=changed_manifest(('name = "demo"', 'name = "tiny"')))
    models = ",".join(f"{name}={url}" for name, (url, _) in vllms.items())
    with running_server(folder / "data", folder / "up.log", EYEPIECE_MODELS=models) as running:
        yield running


def expected_answer(server: RunningServer, slide_id: str, encoder_id: str) -> str:
    """What the stand-in says of the rows that were encoded for that model."""
    file = server.data_dir / "store/tenants/default/slides" / slide_id / "embeddings" / f"{encoder_id}.safetensors"
    return right_answer(from_bytes(file.read_bytes()).tensors["slide_tokens"], QUESTION)


def test_both_answer_the_same_question_and_one_goes_on_without_the_other(
    two_models: RunningServer, vllms: dict[str, tuple[str, subprocess.Popen[bytes]]], tmp_path: Path
) -> None:
    path = tmp_path / "sample.tiff"
    write_sample_slide(path, seed=11, width_px=1024, height_px=768)
    with two_models.client() as client:
        slide = upload(client, path)
        slide_id = hashlib.sha256(path.read_bytes()).hexdigest()
        client.post(f"/v1/slides/{slide_id}/encode", json={"encoder": "tiny"})
        with client.stream("GET", f"/v1/slides/{slide_id}/events", params={"model": "tiny"}) as events:
            names = [line for line in events.iter_lines() if line.startswith("event: ")]
        answers = {model: ask(client, slide_id, QUESTION, model=model) for model in ("demo", "tiny")}

        assert slide["status"] == "ready"
        assert names[-1] == "event: ready"
        assert answers["demo"]["encoder_id"] != answers["tiny"]["encoder_id"]
        for done in answers.values():
            assert done["answer"] == expected_answer(two_models, slide_id, done["encoder_id"])

        vllms["tiny"][1].kill()
        wait_until(lambda: client.get("/readyz").json()["models"]["tiny"] == "unavailable", 60)
        ready = client.get("/readyz")
        alone = ask(client, slide_id, QUESTION)
        refused = client.post(f"/v1/slides/{slide_id}/questions", json={"question": QUESTION, "model": "tiny"})

    assert (ready.status_code, ready.json()["models"]) == (200, {"demo": "ok", "tiny": "unavailable"})
    assert alone["answer"] == answers["demo"]["answer"]
    assert (refused.status_code, refused.json()["code"]) == (503, "language_model_unavailable")
