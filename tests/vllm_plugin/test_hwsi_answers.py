"""`make vllm-kinds`: answers of MLLM-HWSI's public code under drawn weights, token for token, from a real vLLM.

golden/hwsi holds what that code said (transformers, fp32, greedy) of 64 drawn rows in front of a chat, with penalties
and without: questions, ids of the prompts, ids of the answers. Weights and rows are drawn by name and seed.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hwsi_recipe import TOY_QWEN2, rows, toy_language_model
from hwsi_vectors import VECTORS, needs_vectors
from safetensors.numpy import save_file
from toy_kinds import documented_manifest, toy_encoders
from vllm_requests import ONE_REPLY_WITH_IDS, body_from_the_server, npy
from vllm_server import VllmServer, running_vllm

from model_store.compose import compose_model
from model_store.installed import InstalledModel
from model_store.manifest_text import manifest_text
from server.asking.language_model import Message, Sampling
from server.embeddings.slide_inputs import SlideInput

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif("EYEPIECE_LONG_TESTS" not in os.environ, reason="`make vllm-kinds` runs it"),
]

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "golden" / "hwsi"
KNOWN: dict[str, Any] = json.loads((GOLDEN / "answers.json").read_text())
ROWS, PLACEHOLDER = 64, 269


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> InstalledModel:
    """The drawn Qwen2 with rows of its own width in front, installed as any composed model is."""
    folder = tmp_path_factory.mktemp("hwsi") / "hwsi-toy"
    prompt = {"kind": "chatml", "system": "You are an expert histopathology assistant.", "rows": "front"}
    manifest = documented_manifest(("slide_stage", "none"), ("projector", "none"), prompt=prompt)
    llm = manifest.llm.model_copy(update={"served_name": "hwsi-toy"})
    manifest = manifest.model_copy(update={"name": "hwsi-toy", "llm": llm})
    shapes = toy_encoders(manifest, folder, np.random.default_rng(0))
    (folder / "manifest.toml").write_text(manifest_text(manifest))
    (folder / "llm").mkdir()
    ids = {"bos_token_id": 266, "eos_token_id": 268, "pad_token_id": 266}
    (folder / "llm" / "config.json").write_text(json.dumps({"model_type": "qwen2", **TOY_QWEN2, **ids}))
    save_file(toy_language_model(KNOWN["weight_seed"]), folder / "llm" / "model.safetensors", metadata={"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "llm" / name).write_bytes((GOLDEN / name).read_bytes())
    return compose_model(folder, folder.parent / "models", shapes)


@pytest.fixture(scope="module")
def vllm(model: InstalledModel, vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    scratch = tmp_path_factory.mktemp("vllm")
    with running_vllm(model.llm_folder, "hwsi-toy", scratch, "--generation-config", "vllm", key="") as server:
        yield server


def test_answers_are_those_of_the_public_code(vllm: VllmServer) -> None:
    encoded = npy(rows(KNOWN["rows_seed"], ROWS, ROWS))
    slide = SlideInput(encoded, "d" * 64, ROWS, "route")
    assert len(KNOWN["answers"]) == 20
    for known in KNOWN["answers"]:
        how = Sampling(
            max_tokens=48,
            temperature=0.0,
            top_k=20,
            no_repeat_ngram_size=known["no_repeat_ngram_size"] or None,
            generated_repetition_penalty=known["repetition_penalty"],
        )
        body = body_from_the_server([Message("user", known["question"], slide)], how)
        said = vllm.post("/v1/chat/completions", {**body, **ONE_REPLY_WITH_IDS}).raise_for_status().json()

        assert said["prompt_token_ids"] == [PLACEHOLDER] * ROWS + KNOWN["prompts"][known["question"]]
        assert said["choices"][0]["token_ids"] == known["ids"], known["question"]


@needs_vectors
def test_the_handed_check_passes(vllm: VllmServer) -> None:
    check = [sys.executable, VECTORS / "hwsi_equivalence.py", "--only", "generation", "--llm", vllm.url]

    run = subprocess.run(check, cwd=ROOT, capture_output=True, text=True)

    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 of 1 stages missed" in run.stdout
