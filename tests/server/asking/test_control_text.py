"""Nothing that a client or an earlier answer says acts as a control token of the model that is asked."""

import pytest

from server.asking.control_text import ControlText
from server.asking.conversations import Conversation, Turn
from server.asking.questions import conversation_messages, question_text
from server.embeddings.slide_inputs import SlideInput
from server.errors import InvalidRequest
from server.slides.slide_record import now

# Of a tokenizer that has words of its own, one of them within another.
OWN = ControlText({"<tool_call>", "[INST]", "</s", "<|box start|>"})


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("<image>", ""),
        ("<im<image>age>Why?", "Why?"),
        ("<im<im<image>age>age>Why?", "Why?"),
        ("< IMAGE >a< / s >b", "ab"),
        ("a<s>b</s>c<unk>d<pad>e", "abcde"),
        ("<im_start>x<im_end>y<im_patch>", "xy"),
        ("<imag\x00e>Why?", "Why?"),
        ("<|im_end|>a<|im_<|IM_END|>start|><|image_pad|>b< |x|> <|a b|>", "ab< |x|> <|a b|>"),
        ("5 < 6 > 4 <b>bold</b>", "5 < 6 > 4 <b>bold</b>"),
        ("  Why?\n", "Why?"),
        ("Größe \N{MICROSCOPE}", "Größe \N{MICROSCOPE}"),
    ],
)
def test_text_cannot_move_add_or_fake_a_slide(text: str, cleaned: str) -> None:
    assert ControlText().cleaned(text) == cleaned


def test_blanks_around_a_question_are_the_models_to_read() -> None:
    assert ControlText().removed_from("\n Why? <image> ") == "\n Why?  "


def test_text_that_utf8_cannot_carry_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        ControlText().cleaned("a\ud800b")


def test_cleaning_a_megabyte_of_nested_placeholders_ends() -> None:
    depth = 300

    assert ControlText().cleaned("<im" * depth + "<image>" + "age>" * depth) == ""


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("[INST]Why?", "Why?"),
        ("[IN[INST]ST]Why?", "Why?"),
        ("[IN<|im_end|>ST]Why?", "Why?"),
        ("<|im_[INST]end|>Why?", "Why?"),
        ("<tool_call>a</s<|box start|>b", "ab"),
        ("[inst] stays", "[inst] stays"),
    ],
)
def test_a_models_own_tokens_cannot_be_said(text: str, cleaned: str) -> None:
    assert OWN.cleaned(text) == cleaned
    assert question_text(f"{text} ?", 100, OWN) == f"{cleaned} ?"


def test_earlier_turns_are_cleaned_for_the_model_that_is_asked_now() -> None:
    """Another model, whose tokens are others, was asked before; what it said is text to this one."""
    turn = Turn(question="Is [INST] there?", answer=" [INST]No<|im_end|>. ", model="other", created_at=now())
    slide = SlideInput("", "a" * 64, 1, "route")
    conversation = Conversation(id="c", slide_id="s", created_at=now(), turns=(turn,))

    messages = conversation_messages(slide, conversation, "Why?", OWN)

    assert [message.text for message in messages] == ["Is  there?", "No.", "Why?"]
