"""A pair's text is the chat template's, so that what is preferred is what will be served."""

from toy_preference import packaged_tokenizer

from model_store.chat_template import SYSTEM_SENTENCES
from training.language_model.tokenized import slide_opening
from training.preference.pairs import PreferencePair, assistant, user
from training.preference.tokenized_pairs import tokenize_pair


def test_both_conversations_differ_in_the_last_answer_alone() -> None:
    tokenizer = packaged_tokenizer()
    pair = PreferencePair(
        messages=(user("Is there necrosis?"), assistant("No"), user("Are you sure?")),
        slide="s",
        chosen="Necrosis is not seen.",
        rejected="The necrosis is in the upper left quadrant.",
        origin="truth",
    )

    found = tokenize_pair(tokenizer, pair, slide_opening("llava_v1", 2))

    text = tokenizer.decode([*found.prompt, *found.chosen], skip_special_tokens=False)
    assert text == (
        f"<s>{SYSTEM_SENTENCES['llava_v1']} USER: <image><image>\nIs there necrosis? ASSISTANT: No</s>"
        "USER: Are you sure? ASSISTANT: Necrosis is not seen.</s>"
    )
    assert tokenizer.decode(found.rejected, skip_special_tokens=False) == (
        " The necrosis is in the upper left quadrant.</s>"
    )
    assert found.longest == len(found.prompt) + max(len(found.chosen), len(found.rejected))
