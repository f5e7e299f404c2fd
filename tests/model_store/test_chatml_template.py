"""Qwen's turns are written exactly, and a slide's rows stand where the manifest says."""

import json
from pathlib import Path
from typing import Any

import pytest
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import ValidationError
from tokenizers import Tokenizer

from model_store.chat_template import chat_template, qwen_slide_template
from model_store.contracts.prompt import ChatmlPrompt, Place

SYSTEM = "You are an expert histopathology assistant."
TURN = "<|im_start|>user\nWhich grade?<|im_end|>\n<|im_start|>assistant\n"
SLIDE = {"type": "image"}
# The prompt ids of MLLM-HWSI's own code, with a tokenizer made for it.
HWSI = Path(__file__).resolve().parents[3] / "shared" / "hwsi"


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def message(*parts: dict[str, str] | str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": parts[0] if isinstance(parts[0], str) else list(parts)}


def render(*messages: dict[str, Any], rows: Place = "front", system: str = SYSTEM) -> str:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = chat_template(ChatmlPrompt(kind="chatml", system=system, rows=rows), "")
    return environment.from_string(template).render(messages=messages, add_generation_prompt=True)


@pytest.mark.parametrize("parts", [(SLIDE, text("Which grade?")), (text("Which grade?"), SLIDE)])
def test_rows_stand_in_front_of_everything_or_before_the_question(parts: tuple[dict[str, str], ...]) -> None:
    system = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"

    assert render(message(*parts)) == f"<|image_pad|>{system}{TURN}"
    in_turn = render(message(*parts), rows="user")
    assert in_turn == system + TURN.replace("Which", "<|image_pad|>\nWhich")


def test_a_conversation_has_its_slide_once() -> None:
    turns = (message(SLIDE, text("One?")), message("Two.", role="assistant"), message(text("Three?")))

    for place in ("front", "user"):
        prompt = render(*turns, rows=place)  # type: ignore[arg-type]
        assert prompt.count("<|image_pad|>") == 1
        assert prompt.endswith(
            "One?<|im_end|>\n<|im_start|>assistant\nTwo.<|im_end|>\n<|im_start|>user\nThree?<|im_end|>\n"
            "<|im_start|>assistant\n"
        )


def test_without_a_slide_nothing_stands_for_one() -> None:
    assert render(message("Which grade?")) == f"<|im_start|>system\n{SYSTEM}<|im_end|>\n{TURN}"


def test_an_empty_system_sentence_makes_no_turn_and_a_system_message_takes_its_place() -> None:
    assert render(message("Which grade?"), system="") == TURN
    for content in ("Be brief.", [text("Be brief.")]):
        prompt = render({"role": "system", "content": content}, message("Which grade?"))
        assert prompt == f"<|im_start|>system\nBe brief.<|im_end|>\n{TURN}"


@pytest.mark.parametrize("words", ['a "b" \\ c', "{{ 7 * 7 }}", "{% raw %}", "µm\n2", "PLACE"])
def test_what_a_manifest_says_is_text_and_never_template(words: str) -> None:
    assert render(message("Which grade?"), system=words) == f"<|im_start|>system\n{words}<|im_end|>\n{TURN}"


@pytest.mark.parametrize("content", ["<|image_pad|>Why?", [text("Why?"), text("<|image_pad|>")]])
def test_text_that_stands_for_a_slide_without_one_is_refused(content: Any) -> None:
    """The placeholder is a token of the vocabulary: it would be answered as if a slide had been seen."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

    def refuse(reason: str) -> None:
        raise ValueError(reason)

    template = environment.from_string(qwen_slide_template(SYSTEM), globals={"raise_exception": refuse})
    with pytest.raises(ValueError, match="no slide came with it"):
        template.render(messages=[{"role": "user", "content": content}], add_generation_prompt=True)


@pytest.mark.parametrize("words", ["Obey.<|im_end|>", "<|image_pad|>", "line\n<|"])
def test_a_system_sentence_with_a_control_token_is_refused(words: str) -> None:
    with pytest.raises(ValidationError, match="system"):
        ChatmlPrompt(kind="chatml", system=words, rows="front")


def test_vllm_sees_that_it_takes_parts() -> None:
    """vLLM looks for a loop over a message's content inside one over messages; else it places the slide itself."""
    tree = ImmutableSandboxedEnvironment().parse(qwen_slide_template(SYSTEM))
    [outer, *_] = [loop for loop in tree.find_all(nodes.For) if isinstance(loop.iter, nodes.Name)]

    inner = [loop.iter for loop in outer.find_all(nodes.For) if loop is not outer]

    assert any(isinstance(it, nodes.Getitem) and it.arg.as_const() == "content" for it in inner)


def test_prompt_ids_are_those_of_the_published_code() -> None:
    if not HWSI.is_dir():
        pytest.skip("the reference vectors (../shared/hwsi) are not here")
    tokenizer = Tokenizer.from_file(str(HWSI / "tokenizer" / "tokenizer.json"))
    known = json.loads((HWSI / "meta.json").read_text())["prompt"]
    slide = tokenizer.token_to_id("<|image_pad|>")

    for question, ids in zip(known["questions"], known["ids"], strict=True):
        with_slide, without = (render(message(*parts)) for parts in ((SLIDE, text(question)), (text(question),)))
        assert tokenizer.encode(with_slide, add_special_tokens=False).ids == [slide, *ids]
        assert tokenizer.encode(without, add_special_tokens=False).ids == ids
