"""A checkpoint as the published ones are laid out, converted and served: the original weights' greedy tokens come
back through our HTTP API."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running_server import ask, running_server, upload
from toy_checkpoint import Toy, original_folder, toy_manifest
from vllm_requests import npy

from encoders.embedding_file import from_bytes
from encoders.expected_shapes import expected_shapes
from model_store.convert import convert_model
from server.commands.environments import vllm_python

pytestmark = pytest.mark.vllm
REFERENCE = Path(__file__).parent.parent / "vllm_plugin" / "reference_answer.py"
QUESTIONS = ["Which grade?", "Is there necrosis?", "And mitoses?"]
MAX_TOKENS = 16


def reference_turns(folder: Path, rows: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    conversations = [{"slide": npy(rows), "questions": [question], "max_tokens": MAX_TOKENS} for question in QUESTIONS]
    request = json.dumps({"folder": str(folder), "conversations": conversations})
    run = subprocess.run([vllm_python(), REFERENCE], input=request, capture_output=True, text=True, check=True)
    return [turns[0] for turns in json.loads(run.stdout)]


def test_a_converted_lora_checkpoint_answers_as_its_original_weights_do(tmp_path: Path, sample_path: Path) -> None:
    toy = Toy(tmp_path / "published", toy_manifest())
    toy.write_encoders()
    toy.write_lora()
    data_dir = tmp_path / "data"
    convert_model(toy.manifest, toy.folder, data_dir / "models", expected_shapes(toy.manifest), lambda line: None)

    with running_server(data_dir, tmp_path / "up.log", model="toy") as server, server.client() as client:
        slide = upload(client, sample_path)
        stored = data_dir / f"store/tenants/default/slides/{slide['id']}/embeddings/{slide['encoder_id']}.safetensors"
        expected = reference_turns(
            original_folder(toy, tmp_path / "original"), from_bytes(stored.read_bytes()).tensors["slide_tokens"]
        )
        for question, turn in zip(QUESTIONS, expected, strict=True):
            done = ask(client, slide["id"], question, temperature=0, max_tokens=MAX_TOKENS)

            # Random weights speak in raw bytes; vLLM's stream holds back a character that the last token leaves open.
            assert done["answer"].rstrip("\ufffd") == turn["text"].rstrip("\ufffd")
            assert done["usage"]["completion_tokens"] == len(turn["token_ids"])
            assert done["usage"]["prompt_tokens"] == turn["prompt_tokens"]
            assert done["model"] == "toy"
