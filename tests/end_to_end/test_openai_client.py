"""The official OpenAI client, as it comes."""

from typing import Any

import openai
import pytest
from running_server import RunningServer, ask

pytestmark = pytest.mark.vllm
QUESTION = "What tissue is this?"


@pytest.fixture
def chat(server: RunningServer) -> Any:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="not needed on loopback") as client:
        yield client.chat.completions


def content(slide_id: str, form: str) -> list[dict[str, Any]]:
    reference: dict[str, Any] = {
        "slide": {"type": "slide", "slide": {"id": slide_id}},
        "image_url": {"type": "image_url", "image_url": {"url": f"slide:{slide_id}"}},
    }[form]
    return [reference, {"type": "text", "text": QUESTION}]


@pytest.mark.parametrize("form", ["slide", "image_url"])
def test_both_forms_of_reference_stream_the_native_answer(
    server: RunningServer, chat: Any, slide: dict[str, Any], form: str
) -> None:
    with server.client() as client:
        native = ask(client, slide["id"], QUESTION, temperature=0, max_tokens=4)

    chunks = list(
        chat.create(
            model="demo",
            messages=[{"role": "user", "content": content(slide["id"], form)}],
            temperature=0,
            max_tokens=4,
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == native["answer"]
    assert chunks[-1].usage.completion_tokens == 4
    assert chunks[-2].choices[0].finish_reason == "length"


def test_the_whole_answer_and_a_follow_up(chat: Any, slide: dict[str, Any]) -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": content(slide["id"], "slide")}]
    first = chat.create(model="demo", messages=messages, max_tokens=8)
    messages += [
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": "Which grade?"},
    ]

    second = chat.create(model="demo", messages=messages, max_tokens=8)

    assert second.choices[0].message.content
    assert second.usage.prompt_tokens > first.usage.prompt_tokens
    assert second.usage.prompt_tokens_details.cached_tokens > 0


def test_any_other_url_is_refused(chat: Any) -> None:
    for url in ("https://example.org/slide.png", "file:///etc/passwd", "data:image/png;base64,AAAA"):
        part = {"type": "image_url", "image_url": {"url": url}}
        with pytest.raises(openai.UnprocessableEntityError, match="slide:"):
            chat.create(model="demo", messages=[{"role": "user", "content": [part]}])


def test_an_unknown_slide_is_the_clients_not_found(chat: Any) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        chat.create(model="demo", messages=[{"role": "user", "content": content("0" * 64, "slide")}])

    assert caught.value.code == "not_found"


def test_the_model_is_listed(server: RunningServer) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="not needed on loopback") as client:
        assert [model.id for model in client.models.list()] == ["demo"]
