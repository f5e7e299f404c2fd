"""Answers that are one of some choices, and answers that follow a JSON schema, by a real vLLM."""

import json
import math
from typing import Any

import httpx
import jsonschema_rs
import openai
import pytest
from running_server import RunningServer, ask

pytestmark = pytest.mark.vllm
QUESTION = "Is there necrosis? Answer Yes or No."
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "necrosis": {"type": "boolean"},
        "pattern": {"$ref": "#/$defs/Pattern"},
        "grade": {"type": "integer", "minimum": 1, "maximum": 3},
        "why": {"type": ["string", "null"], "maxLength": 12},
        "findings": {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 1, "maxItems": 2},
    },
    "required": ["necrosis", "pattern", "grade", "why", "findings"],
    "additionalProperties": False,
    "$defs": {"Pattern": {"enum": ["glandular", 'so-called "solid"', "papillär"]}},
}


def test_the_likeliest_choice_is_the_answer_that_the_model_gives_by_itself(
    client: httpx.Client, slide: dict[str, Any]
) -> None:
    free = ask(client, slide["id"], QUESTION, temperature=0)["answer"]
    other = "No" if free == "Yes" else "Yes"
    chosen = ask(client, slide["id"], QUESTION, choices=[other, free])
    told = {it["text"]: it["probability"] for it in chosen["choices"]}

    assert free in ("Yes", "No")
    assert chosen["answer"] == free
    assert list(told) == [other, free]
    assert told[free] > told[other]
    assert math.fsum(told.values()) == pytest.approx(1, abs=1e-12)
    assert chosen["usage"]["completion_tokens"] == 1
    assert "choices_unlikely" not in [it["code"] for it in chosen["warnings"]]


def test_what_the_model_would_never_say_is_chosen_from_and_doubted(client: httpx.Client, slide: dict[str, Any]) -> None:
    choices = [f"{number} mitoses and more" for number in range(26)]
    chosen = ask(client, slide["id"], QUESTION, choices=choices)

    assert chosen["answer"] in choices
    assert math.fsum(it["probability"] for it in chosen["choices"]) == pytest.approx(1, abs=1e-12)
    assert "choices_unlikely" in [it["code"] for it in chosen["warnings"]]


@pytest.mark.parametrize("temperature", [0, 2])
def test_an_answer_follows_its_json_schema(server: RunningServer, slide: dict[str, Any], temperature: float) -> None:
    content: Any = [{"type": "slide", "slide": {"id": slide["id"]}}, {"type": "text", "text": "Describe the slide."}]
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="not needed on loopback") as chat:
        chunks = chat.chat.completions.create(
            model="demo",
            messages=[{"role": "user", "content": content}],
            temperature=temperature,
            seed=1,
            max_tokens=200,
            stream=True,
            response_format={"type": "json_schema", "json_schema": {"name": "report", "schema": SCHEMA}},
        )
        told = [chunk.choices[0] for chunk in chunks if chunk.choices]
        assert told[-1].finish_reason == "stop"
        jsonschema_rs.validate(SCHEMA, json.loads("".join(it.delta.content or "" for it in told)))
