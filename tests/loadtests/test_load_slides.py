"""What a bare vLLM is asked is what the API would ask it."""

import json

import numpy as np
import pytest

from encoders.embedding_file import to_bytes
from encoders.types import SlideEmbedding
from loadtests.load_model import SLIDE_TOKENS, SLIDE_WIDTH, load_model
from loadtests.load_slides import LoadSlide, api_request, bare_request
from loadtests.own_server import OwnServer
from server.embeddings.cache import CachedEmbedding
from server.slides.slide_record import now


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> OwnServer:
    folder = tmp_path_factory.mktemp("data")
    return OwnServer(
        "http://api:1", "http://llm:2", "key", "redis://redis:3", folder, load_model(folder / "models", "tiny")
    )


@pytest.fixture
def slide() -> LoadSlide:
    tensors = {"slide_tokens": np.ones((SLIDE_TOKENS, SLIDE_WIDTH), np.float16)}
    embedding = SlideEmbedding("a" * 64, "b" * 16, tensors, 1, "override", now().isoformat())
    return LoadSlide("a" * 64, CachedEmbedding(embedding, to_bytes(embedding)))


async def test_the_request_is_the_apis_own(server: OwnServer, slide: LoadSlide) -> None:
    request = await bare_request(server, slide, "And why?", ("What?", "This."))

    body = json.loads(request.body)
    first, answer, last = body["messages"]
    tensor, text = first["content"]
    assert request.url == "http://llm:2/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer key"
    assert len(request.headers["x-slide-id"]) == 64
    assert (body["model"], body["stream"], body["max_tokens"], body["temperature"]) == ("load-tiny", True, 48, 0.0)
    assert len(body["cache_salt"]) == 64
    assert tensor["type"] == "image_embeds"
    assert len(tensor["image_embeds"]) > SLIDE_TOKENS * SLIDE_WIDTH * 2
    assert len(tensor["uuid"]) == 64
    assert (text["text"], answer["content"], last["content"]) == ("What?", "This.", "And why?")


async def test_two_slides_share_no_cache_entry(server: OwnServer, slide: LoadSlide) -> None:
    other = LoadSlide("c" * 64, CachedEmbedding(slide.cached.embedding, slide.cached.content + b"another"))
    bodies = [json.loads((await bare_request(server, it, "What?")).body) for it in (slide, other)]

    uuids = {body["messages"][0]["content"][0]["uuid"] for body in bodies}
    assert len(uuids) == 2


def test_the_api_is_asked_without_the_slide(server: OwnServer, slide: LoadSlide) -> None:
    request = api_request(server, slide, "What?", "conv")

    assert request.url == f"http://api:1/v1/slides/{slide.id}/questions"
    assert json.loads(request.body) == {"question": "What?", "temperature": 0, "conversation_id": "conv"}
