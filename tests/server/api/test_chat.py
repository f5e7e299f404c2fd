"""The OpenAI dialect: what is understood, what is refused, and the shapes that clients read."""

from typing import Any

import pytest
from pydantic import ValidationError

from server.api.chat import ChatCompletionRequest, Completion, chat_messages, refuse_unsupported, slide_of
from server.asking.control_text import ControlText
from server.asking.language_model import Finished, Usage
from server.asking.scope import WHOLE_SLIDE
from server.embeddings.slide_inputs import SlideInput
from server.errors import InvalidRequest

SLIDE = "ab" * 32
INPUT = SlideInput("", "uuid", 1, "route")
NATIVE = {"type": "slide", "slide": {"id": SLIDE}}
AS_IMAGE = {"type": "image_url", "image_url": {"url": f"slide:{SLIDE}"}}

# What passes where a client lets http(s) and data: addresses through alone.
AS_ADDRESS = {"type": "image_url", "image_url": {"url": f"https://slides.invalid/{SLIDE}"}}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def chat(*messages: tuple[str, Any], **options: Any) -> ChatCompletionRequest:
    spelled = [{"role": role, "content": content} for role, content in messages]
    return ChatCompletionRequest.model_validate({"model": "demo", "messages": spelled, **options})


def question(*parts: dict[str, Any], **options: Any) -> ChatCompletionRequest:
    return chat(("user", [*parts, text("Why?")]), **options)


@pytest.mark.parametrize("part", [NATIVE, AS_IMAGE, AS_ADDRESS])
def test_a_slide_is_named_in_any_spelling(part: dict[str, Any]) -> None:
    assert slide_of(question(part)) == (SLIDE, None)


def test_a_slide_may_be_named_more_than_once_and_anywhere() -> None:
    spoken = chat(("user", [text("One?"), NATIVE]), ("assistant", "So."), ("user", [AS_IMAGE, text("Two?")]))

    assert slide_of(spoken) == (SLIDE, None)


def test_a_chat_without_slide_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="names no slide"):
        slide_of(chat(("user", "Why?")))


@pytest.mark.parametrize("part", [{"type": "slide"}, {"type": "image_url"}, {"type": "image_url", "image_url": None}])
def test_a_part_that_names_nothing_is_refused(part: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="needs the field"):
        refuse_unsupported(question(NATIVE, part))


@pytest.mark.parametrize("kind", ["input_audio", "file", "input_image", "refusal", "video_url", "x" * 10**5])
def test_a_part_of_another_type_is_refused_by_its_name(kind: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{kind[:40]}.*not supported") as caught:
        refuse_unsupported(question(NATIVE, {"type": kind}))

    assert len(caught.value.detail) < 200


def test_a_chat_about_two_slides_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="several slides"):
        slide_of(question(NATIVE, {"type": "slide", "slide": {"id": "cd" * 32}}))


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/x.png",
        "https://example.com/x.png",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "http://[",
        "http://[::1",
        "//host/path",
        "http://slides.invalid/" + SLIDE,
        "https://slides.invalid@example.com/" + SLIDE,
        "https://slides.invalid.example.com/" + SLIDE,
        SLIDE,
        "",
        " slide:" + SLIDE,
        "x" * 10**6,
    ],
)
def test_nothing_is_ever_fetched_from_a_url(url: str) -> None:
    with pytest.raises(InvalidRequest, match="slide:<slide id>"):
        slide_of(question({"type": "image_url", "image_url": {"url": url}}))


def test_turns_become_messages_with_the_slide_before_the_first() -> None:
    spoken = chat(("user", [NATIVE, text("One?"), text("More.")]), ("assistant", "So."), ("user", "Two? <image>"))

    messages = chat_messages(spoken, INPUT, 100, ControlText())

    assert [(message.role, message.text, message.slide) for message in messages] == [
        ("user", "One?\nMore.", INPUT),
        ("assistant", "So.", None),
        ("user", "Two? ", None),
    ]


@pytest.mark.parametrize(
    ("spoken", "why"),
    [
        ([("system", "Obey."), ("user", "Why?")], "take turns"),
        ([("user", "One?"), ("user", "Two?")], "take turns"),
        ([("assistant", "So.")], "take turns"),
        ([("tool", "x")], "take turns"),
        ([("user", "One?"), ("assistant", "So.")], "last message"),
        ([("system", ""), ("system", ""), ("user", "Why?")], "take turns"),
        ([("system", "")], "last message"),
        ([("assistant", "")], "last message"),
        ([("user", "One?"), ("assistant", ""), ("assistant", "")], "last message"),
        ([("user", "")], "no text"),
        ([("user", None)], "no text"),
        ([("user", [])], "no text"),
        ([("user", "<image>")], "no text"),
        ([("user", "x" * 101)], "longer than"),
        ([("user", "One?"), ("assistant", "x" * 101), ("user", "Two?")], "longer than"),
    ],
)
def test_a_chat_that_is_no_conversation_is_refused(spoken: list[tuple[str, Any]], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        chat_messages(chat(*spoken), INPUT, 100, ControlText())


def test_a_models_own_control_tokens_are_left_out_of_every_turn() -> None:
    """Also where two parts of a text make one, and in answers that the client says there were."""
    part = [NATIVE, text("On[IN"), text("ST]e?"), text("<|im_start|>[INST]")]
    spoken = chat(("user", part), ("assistant", "[INST]So.<|im_end|>"), ("user", "[IN[INST]ST]Two?"))

    messages = chat_messages(spoken, INPUT, 100, ControlText({"[INST]", "[IN\nST]"}))

    assert [message.text for message in messages] == ["One?\n", "So.", "Two?"]


@pytest.mark.parametrize(
    "options",
    [
        {"n": 2},
        {"best_of": 3},
        {"use_beam_search": True},
        {"num_beams": 3},
        {"length_penalty": 0.5, "num_beams": 2},
        {"early_stopping": True},
    ],
)
def test_beams_are_refused_with_the_reason(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="every step of a beam as a new prompt") as caught:
        refuse_unsupported(question(NATIVE, **options))

    assert all(name in caught.value.detail for name in options)


def test_turns_that_say_nothing_are_left_out_or_kept_empty() -> None:
    said = [("user", [NATIVE, text("One?")]), ("assistant", None), ("user", "Two?")]
    expected = [("user", "One?"), ("assistant", ""), ("user", "Two?")]

    for spoken in (said, [("system", " "), *said], [("developer", None), *said, ("assistant", "")]):
        messages = chat_messages(chat(*spoken), INPUT, 100, ControlText())
        assert [(message.role, message.text) for message in messages] == expected
        assert messages[0].slide is INPUT


@pytest.mark.parametrize("field", [{"tool_calls": [{"id": "1"}]}, {"function_call": {"name": "f"}}, {"audio": {}}])
def test_a_turn_that_says_more_than_its_text_is_refused_by_the_name(field: dict[str, Any]) -> None:
    spoken = chat(("user", [NATIVE, text("Why?")]))
    (message,) = spoken.messages
    message = type(message).model_validate({"role": "assistant", "content": "", **field})

    with pytest.raises(InvalidRequest, match=next(iter(field))):
        refuse_unsupported(spoken.model_copy(update={"messages": [*spoken.messages, message]}))


@pytest.mark.parametrize(
    "options",
    [
        {"tools": [{"type": "function"}]},
        {"logprobs": True},
        {"frequency_penalty": 1.0},
        {"logit_bias": {"5": 1}},
        {"presence_penalty": -0.5},
        {"presence_penalty": False},
        {"tools": {}},
        {"tool_choice": "required"},
        {"modalities": ["audio"]},
        {"reasoning_effort": "high"},
        {"top_k": 5},
        {"repetition_penalty": 1.1},
        {"web_search_options": {}},
        {"n": 2},
        {"n": 0},
        {"mm_processor_kwargs": {}},
        {"x" * 10**5: 1},
    ],
)
def test_an_option_that_would_be_ignored_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        refuse_unsupported(question(NATIVE, **options))

    assert len(caught.value.detail) < 500
    name = next(iter(options))
    assert name[:40] in caught.value.detail


@pytest.mark.parametrize(
    "options",
    [
        {"user": "me"},
        {"metadata": {"a": "b"}},
        {"store": False},
        {"tools": None},
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
        {"functions": [], "function_call": "none"},
        {"presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "repetition_penalty": 1.0},
        {"n": None, "stream": None, "stop": None, "seed": None, "max_tokens": None, "stream_options": None},
        {"logprobs": False, "top_logprobs": 0, "response_format": {"type": "text"}, "modalities": ["text"]},
        {"top_k": -1, "min_p": 0.0, "ignore_eos": False, "prediction": None},
        {
            "n": 1,
            "best_of": 1,
            "num_beams": 1,
            "use_beam_search": False,
            "length_penalty": 1.0,
            "early_stopping": False,
        },
    ],
)
def test_what_means_nothing_here_is_ignored(options: dict[str, Any]) -> None:
    refuse_unsupported(question(NATIVE, **options))


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": float("nan")},
        {"temperature": -1},
        {"temperature": 10**400},
        {"top_p": 0},
        {"top_p": float("inf")},
        {"max_tokens": 0},
        {"max_tokens": 10**30},
        {"seed": 2**63},
        {"stop": ""},
        {"stop": ["a", ""]},
        {"stop": ["a"] * 5},
        {"stop": "x" * 201},
        {"stream": "perhaps"},
        {"messages": []},
        {"messages": [{"role": "user", "content": "x"}] * 201},
    ],
)
def test_a_value_out_of_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        question(NATIVE, **options)


def test_wishes_are_read_in_either_spelling() -> None:
    first = question(NATIVE, max_tokens=5, stop="x", temperature=0).sampling_options()
    second = question(NATIVE, max_tokens=5, max_completion_tokens=7, stop=["x", "y"]).sampling_options()

    assert (first.max_tokens, first.stop, first.temperature) == (5, ("x",), 0)
    assert (second.max_tokens, second.stop, second.temperature) == (7, ("x", "y"), None)


def test_a_completion_has_the_shape_that_openai_clients_read() -> None:
    whole = Completion("demo", "Research use only.", WHOLE_SLIDE).whole("No.", Finished("length", Usage(50, 32, 16, 3)))

    assert whole["object"] == "chat.completion"
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": "No.", "refusal": None}
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["usage"]["total_tokens"] == 53
    assert whole["usage"]["prompt_tokens_details"] == {"cached_tokens": 16}
    assert whole["notice"] == "Research use only."


def test_all_chunks_of_an_answer_share_their_id() -> None:
    completion = Completion("demo", "", WHOLE_SLIDE)

    assert len({completion.chunk({"content": word})["id"] for word in ("a", "b")}) == 1
    assert Completion("demo", "", WHOLE_SLIDE).id != completion.id
