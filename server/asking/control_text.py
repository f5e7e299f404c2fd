"""Text of a client, or of an earlier answer, on its way into a prompt: nothing in it may act as a control token."""

import re
from collections.abc import Iterable

from server.errors import InvalidRequest

# Anything that a template or tokenizer could take for a control token, in any case and with stray blanks; in the second
# form are those of Qwen and its like: `<|im_end|>`, `<|image_pad|>`.
_ANY_MODELS = r"(?i:<\s*/?\s*(?:image|s|im_start|im_end|im_patch|unk|pad|bos|eos)\s*>|<\|\s*[a-z0-9_]{1,64}\s*\|>)"


class ControlText:
    """What may not stand in a text for one model: what looks like a control token, and its tokenizer's own."""

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        """`tokens` are those that the tokenizer would split from a text, as it has them."""
        own = [re.escape(token) for token in sorted(tokens, key=len, reverse=True)]
        self._pattern = re.compile("|".join([_ANY_MODELS, *own]))

    def cleaned(self, text: str) -> str:
        """The text without control text and without blanks around it."""
        return self.removed_from(text).strip()

    def removed_from(self, text: str) -> str:
        """The text without anything that could move, add or fake a slide, or a turn.

        Raises:
            InvalidRequest: it is not text that UTF-8 can carry.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest("The text holds lone surrogates; send valid Unicode.") from error
        text = text.replace("\x00", "")  # first: inside a placeholder it would hide it
        while (left := self._pattern.sub("", text)) != text:  # again: `<im<image>age>` leaves another one behind
            text = left
        return text
