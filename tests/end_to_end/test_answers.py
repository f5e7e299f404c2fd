"""The answer through HTTP equals plain transformers fed `[text, projector(slide), text]`, token for token."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_server import RunningServer, ask

from encoders.embedding_file import from_bytes
from server.embeddings.slide_inputs import npy_base64

pytestmark = pytest.mark.vllm

Reference = Callable[[dict[str, Any]], list[Any]]
QUESTIONS = ["What tissue is this?", "Which grade has the tumour?", "Do you see\nnecrosis, or “mitoses”?"]
MAX_TOKENS = 24


def reference_turns(
    server: RunningServer, slide: dict[str, Any], plain_transformers: Reference
) -> list[dict[str, Any]]:
    folder = server.data_dir / "store/tenants/default/slides" / slide["id"] / "embeddings"
    embedding = from_bytes((folder / f"{slide['encoder_id']}.safetensors").read_bytes())
    conversation = {
        "slide": npy_base64(embedding.tensors["slide_tokens"]),
        "questions": QUESTIONS,
        "max_tokens": MAX_TOKENS,
    }
    request = {"folder": str(server.data_dir / "models/demo/llm"), "conversations": [conversation]}
    turns: list[dict[str, Any]] = plain_transformers(request)[0]
    return turns


def test_three_turns_equal_transformers_token_for_token(
    server: RunningServer, client: httpx.Client, slide: dict[str, Any], plain_transformers: Reference
) -> None:
    expected = reference_turns(server, slide, plain_transformers)

    conversation_id = None
    for question, turn in zip(QUESTIONS, expected, strict=True):
        options = {"conversation_id": conversation_id} if conversation_id else {}
        done = ask(client, slide["id"], question, temperature=0, max_tokens=MAX_TOKENS, **options)
        conversation_id = done["conversation_id"]

        assert done["answer"] == turn["text"].lstrip()
        assert done["usage"]["completion_tokens"] == len(turn["token_ids"])
        assert done["usage"]["prompt_tokens"] == turn["prompt_tokens"]
        assert done["usage"]["slide_tokens"] == 32
    turns = client.get(f"/v1/conversations/{conversation_id}").json()["turns"]
    assert [turn["question"] for turn in turns] == QUESTIONS


def test_another_slide_gets_another_answer(
    server: RunningServer, client: httpx.Client, slide: dict[str, Any], shared_slides: Path
) -> None:
    from running_server import upload

    other = upload(client, shared_slides / "cmu-1-small-region.svs")

    answers = {ask(client, it["id"], QUESTIONS[0], temperature=0)["answer"] for it in (slide, other)}

    assert len(answers) == 2
