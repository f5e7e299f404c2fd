"""Texts that a served tokenizer takes for one token with a meaning of its own: a turn's end, a slide's place.

No torch: the API asks.
"""

import json
import re
from pathlib import Path
from typing import Any, Final

from model_store.errors import ModelError

_FAST_FILE: Final = "tokenizer.json"
_CONFIG_FILE: Final = "tokenizer_config.json"
_FILES: Final = (_FAST_FILE, _CONFIG_FILE, "special_tokens_map.json", "added_tokens.json")
# `<tool_call>` and its like are added without being called special, and split from the text all the same.
_BRACKETED: Final = re.compile(r"<[^<>\s]+>|\[[A-Z_]+\]")


def control_tokens(folder: Path) -> frozenset[str]:
    """Every special token of the tokenizer in a folder that vLLM serves, and every added one in brackets, wherever a
    version of transformers wrote it down. Tokens of white space alone are text.

    Raises ModelError that names a file which cannot be read.
    """
    documents = {name: _read(folder / name) for name in _FILES if (folder / name).is_file()}
    fast, config = documents.get(_FAST_FILE, {}), documents.get(_CONFIG_FILE, {})
    added = [*(fast.get("added_tokens") or []), *(config.get("added_tokens_decoder") or {}).values()]
    found = {token["content"] for token in added if token.get("special") or _BRACKETED.fullmatch(token["content"])}
    found |= {name for name in documents.get("added_tokens.json", {}) if _BRACKETED.fullmatch(name)}
    for document in (config, documents.get("special_tokens_map.json", {})):
        named = [value for name, value in document.items() if name.endswith("_token")]
        for value in (*named, *(document.get("additional_special_tokens") or [])):
            text = value.get("content") if isinstance(value, dict) else value
            if isinstance(text, str):  # `add_bos_token` is a switch
                found.add(text)
    return frozenset(text for text in found if text.strip())


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"The model's {path.parent.name}/{path.name} cannot be read; install it again.") from error
    if not isinstance(content, dict):
        raise ModelError(f"The model's {path.parent.name}/{path.name} is not a JSON object; install it again.")
    return content
