"""What is converted from a LoRA checkpoint answers through vLLM as the original weights do in plain transformers."""

import json
import subprocess
from pathlib import Path

import pytest
from safetensors.torch import save_file

from encoders.expected_shapes import expected_shapes
from model_store.convert import convert_model
from tests.model_store.toy_checkpoint import Toy, toy_manifest
from tests.vllm_requests import npy, question, slide_part, slide_tokens
from tests.vllm_server import VLLM_PYTHON, running_vllm
from training.demo_tokenizer import write_tokenizer

REFERENCE = Path(__file__).parents[1] / "vllm_plugin/reference_answer.py"
QUESTIONS = ["Which grade?", "Is there necrosis?"]
MAX_TOKENS = 16


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    toy = Toy(tmp_path / "published", toy_manifest())
    toy.write_encoders()
    toy.write_lora()
    return toy


def original(toy: Toy, folder: Path) -> Path:
    """The merged tensors as the toy made them, never converted, in the folder layout of reference_answer.py."""
    folder.mkdir()
    save_file(toy.final, folder / "model.safetensors")
    config = {"mm_hidden_size": toy.config["mm_hidden_size"], "text_config": {**toy.config, "model_type": "llama"}}
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(toy.tokenizer, folder)
    return folder


@pytest.mark.vllm
@pytest.mark.skipif(not VLLM_PYTHON.exists(), reason="vLLM's environment .venv-vllm is not built")
def test_greedy_tokens_equal_those_of_the_original_weights_in_transformers(toy: Toy, tmp_path: Path) -> None:
    shapes = expected_shapes(toy.manifest)
    model = convert_model(toy.manifest, toy.folder, tmp_path / "models", shapes, lambda line: None)
    slides = [npy(slide_tokens(count, toy.manifest.slide_encoder.embed_dim, seed=count)) for count in (1, 32)]
    asked = [(slide, text) for slide in slides for text in QUESTIONS]
    conversations = [{"slide": slide, "questions": [text], "max_tokens": MAX_TOKENS} for slide, text in asked]
    request = json.dumps({"folder": str(original(toy, tmp_path / "original")), "conversations": conversations})
    run = subprocess.run([VLLM_PYTHON, REFERENCE], input=request, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    expected = [turns[0]["token_ids"] for turns in json.loads(run.stdout)]

    with running_vllm(model.llm_folder, "toy", tmp_path) as vllm:
        answers = [
            vllm.chat([question(f"<image> \n{text}", slide_part(slide))], max_tokens=MAX_TOKENS, return_token_ids=True)
            for slide, text in asked
        ]

    assert [answer.raise_for_status().json()["choices"][0]["token_ids"] for answer in answers] == expected
    assert len({tuple(tokens) for tokens in expected}) > 1, "slide and question show in the answers"
