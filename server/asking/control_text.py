"""Text of a client, or of an earlier answer, on its way into a prompt: nothing in it may act as a control token."""

import re

from server.errors import InvalidRequest

# Anything that a template or tokenizer could take for a control token, in any case and with stray blanks; in the second
# form are those of Qwen and its like: `<|im_end|>`, `<|image_pad|>`.
_CONTROL_TEXT = re.compile(
    r"<\s*/?\s*(?:image|s|im_start|im_end|im_patch|unk|pad|bos|eos)\s*>|<\|\s*[a-z0-9_]{1,64}\s*\|>", re.IGNORECASE
)


def clean_text(text: str) -> str:
    """The text without control text and without blanks around it."""
    return without_control_text(text).strip()


def without_control_text(text: str) -> str:
    """The text without anything that could move, add or fake a slide.

    Raises:
        InvalidRequest: it is not text that UTF-8 can carry.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest("The text holds lone surrogates; send valid Unicode.") from error
    text = text.replace("\x00", "")  # first: inside a placeholder it would hide it
    while (cleaned := _CONTROL_TEXT.sub("", text)) != text:  # again: `<im<image>age>` leaves another one behind
        text = cleaned
    return text
