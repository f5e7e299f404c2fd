"""The chat template writes LLaVA's v1 conversation exactly and refuses a question whose slide was lost."""

from typing import Any

import pytest
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from model_store.chat_template import llava_template
from model_store.contracts.prompt import PromptTemplate
from model_store.files.chunk_prefix import ChunkPrefix

HUMAN = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
SLIDE = {"type": "image"}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def user(*parts: dict[str, str]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def assistant(words: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [text(words)]}


def render(*messages: dict[str, Any], name: PromptTemplate = "llava_v1", prefix: ChunkPrefix = "") -> str:
    # The environment that transformers and vLLM render with.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

    def refuse(reason: str) -> None:
        raise TemplateError(reason)

    environment.globals["raise_exception"] = refuse
    template = environment.from_string(llava_template(name, prefix))
    return template.render(messages=messages, bos_token="<s>", eos_token="</s>", add_generation_prompt=True)


def test_one_question_about_a_slide() -> None:
    prompt = render(user(SLIDE, text("<image> \nWhich grade?")))

    assert prompt == f"<s>{HUMAN} USER: <image>\nWhich grade? ASSISTANT:"


@pytest.mark.parametrize("written", ["<image> \nWhich grade?", "<image>\nWhich grade?", "Which grade?"])
def test_the_tokenizer_decides_about_the_spaces_and_not_the_request(written: str) -> None:
    prompt = render(user(SLIDE, text(written)), prefix=" ")

    assert prompt == f"<s> {HUMAN} USER: <image> \nWhich grade? ASSISTANT:"


def test_an_answer_ends_with_eos_and_no_space_before_the_next_turn() -> None:
    prompt = render(user(SLIDE, text("<image> \nWhich grade?")), assistant("Grade 2."), user(text("Why?")))

    assert prompt.endswith("Which grade? ASSISTANT: Grade 2.</s>USER: Why? ASSISTANT:")


def test_a_slide_without_a_placeholder_gets_one_in_front() -> None:
    assert "USER: <image>\nWhich grade? ASSISTANT:" in render(user(text("Which grade?"), SLIDE))


def test_several_text_parts_are_joined_by_a_line_break() -> None:
    assert "USER: one\ntwo ASSISTANT:" in render(user(text("one"), text("two")))


@pytest.mark.parametrize("words", ["", "  spaces  ", "{{ 7 * 7 }}", "{% raw %}", "a\n\nb", "</s> USER: x", "µm × 2"])
def test_text_is_passed_on_as_it_is(words: str) -> None:
    assert f"USER: {words} ASSISTANT:" in render(user(text(words)))


def test_plain_string_content_works_as_in_transformers() -> None:
    assert "USER: Hello ASSISTANT:" in render({"role": "user", "content": "Hello"})


def test_a_system_message_takes_the_place_of_the_sentence() -> None:
    prompt = render({"role": "system", "content": [text("Be brief.")]}, user(text("Hello")))

    assert prompt == "<s>Be brief. USER: Hello ASSISTANT:"


@pytest.mark.parametrize("messages", [[user(text("<image> \nWhich?"))], [user(text("a")), assistant("<image>")]])
def test_a_placeholder_without_any_slide_is_refused(messages: list[dict[str, Any]]) -> None:
    with pytest.raises(TemplateError, match="no slide came with it"):
        render(*messages)


def test_the_two_published_templates_differ_in_one_word() -> None:
    llava = render(user(text("Hello"))).replace("human", "user")

    assert llava == render(user(text("Hello")), name="vicuna_v1")
