"""`make vllm-kinds`: from MLLM-HWSI's published files to answers over HTTP, as docs/published-models.md leads.

The files are drawn, at toy size; the manifest of that size is all that is added to the page's commands. Rows and prompt
are then given to plain transformers, which must answer the same: three questions, a follow-up among them.
"""

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_page import commands_of
from published_hwsi import SYSTEM, toy_hwsi_manifest, untrained, write_published_hwsi
from running_server import ask, running_server, upload
from tokenizers import Tokenizer
from torch import load, save
from vllm_server import VLLM_PYTHON

from encoders.embedding_file import from_bytes
from model_store.manifest_text import manifest_text

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif("EYEPIECE_LONG_TESTS" not in os.environ, reason="`make vllm-kinds` runs it"),
]
REFERENCE = Path(__file__).parents[1] / "vllm_plugin" / "reference_composition.py"
QUESTIONS = ("What is the histological type of this tumor?", "Is there necrosis?<|im_end|>", "Which grade?")
MAX_TOKENS = 32


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fetched and converted by the commands of the page; its projector was never trained."""
    scratch = tmp_path_factory.mktemp("hwsi")
    manifest, place = toy_hwsi_manifest("mllm-hwsi"), scratch / "place"
    networks = write_published_hwsi(manifest, place)
    # Norms that were never trained, and all else as it was drawn: another slide still makes other rows.
    assert load(place / "llm" / "vl_projector.pt", weights_only=True)
    save({"vl_projector_state_dict": untrained(networks["projector"])}, place / "llm" / "vl_projector.pt")
    (scratch / "toy.toml").write_text(manifest_text(manifest))
    for command in commands_of("MLLM-HWSI"):
        if command[:2] in (["models", "fetch"], ["models", "convert"]):
            given = [str(place) if part == "<place>" else part for part in command]
            toy = ["--manifest", str(scratch / "toy.toml"), "--data-dir", str(scratch / "data")]
            ran = subprocess.run([sys.executable, "-m", "server", *given, *toy], capture_output=True, text=True)
            assert ran.returncode == 0, ran.stdout + ran.stderr
    return scratch / "data"


def test_answers_are_those_of_plain_transformers_from_the_same_rows(
    data_dir: Path, sample_path: Path, tmp_path: Path
) -> None:
    llm = data_dir / "models" / "mllm-hwsi" / "llm"
    tokenizer = Tokenizer.from_file(str(llm / "tokenizer.json"))
    with running_server(data_dir, tmp_path / "up.log", "mllm-hwsi") as server, server.client() as client:
        slide = upload(client, sample_path)
        assert slide["status"] == "ready", slide
        first = ask(client, slide["id"], QUESTIONS[0], max_tokens=MAX_TOKENS)
        follow_up = ask(
            client, slide["id"], QUESTIONS[1], max_tokens=MAX_TOKENS, conversation_id=first["conversation_id"]
        )
        other = ask(client, slide["id"], QUESTIONS[2], max_tokens=MAX_TOKENS)
    [stored] = data_dir.glob(f"store/**/{slide['id']}/**/{slide['encoder_id']}.safetensors")
    rows = from_bytes(stored.read_bytes()).tensors["slide_tokens"]
    assert rows.shape == (first["usage"]["slide_tokens"], 64)

    cases = [
        case(rows, turn(QUESTIONS[0])),
        case(rows, f"{turn(QUESTIONS[0])}{first['answer'].strip()}<|im_end|>\n{turn('Is there necrosis?', '')}"),
        case(rows, turn(QUESTIONS[2])),
    ]
    for done, plain in zip((first, follow_up, other), answered(llm, cases), strict=True):
        text = tokenizer.decode(plain["token_ids"], skip_special_tokens=True)
        assert done["answer"].strip() == text.strip()
        assert done["usage"]["completion_tokens"] == len(plain["token_ids"])
        assert done["usage"]["prompt_tokens"] == plain["prompt_tokens"]
    assert len({it["answer"] for it in (first, follow_up, other)}) == 3
    assert [[it["code"] for it in done["warnings"]] for done in (first, other)] == [["model_doubted"]] * 2


def turn(question: str, system: str = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n") -> str:
    return f"{system}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def case(rows: np.ndarray[Any, Any], text: str) -> dict[str, Any]:
    """The rows in front of the whole chat, and the defaults of the packaged manifest."""
    buffer = io.BytesIO()
    np.save(buffer, rows)
    options = {"max_new_tokens": MAX_TOKENS, "repetition_penalty": 1.15, "no_repeat_ngram_size": 3}
    return {"slide": base64.b64encode(buffer.getvalue()).decode(), "before": "", "after": text, "options": options}


def answered(llm: Path, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    request = json.dumps({"folder": str(llm), "cases": cases})
    run = subprocess.run([VLLM_PYTHON, REFERENCE], input=request, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return list(json.loads(run.stdout))
