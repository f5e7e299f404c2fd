"""The prefix that a prompt needs for LLaVA's ids, given how the tokenizer beside it splits text.

LLaVA splits a prompt at the placeholder and tokenises each chunk on its own (mm_utils.tokenizer_image_token of
haotian-liu/LLaVA), vLLM tokenises the whole. A SentencePiece tokenizer marks the beginning of a text with a `▁`. In
legacy mode it marks every stretch between two special tokens, so both ways agree. Without it only the very beginning
is marked: what stands behind `<s>` and behind the placeholder needs a space, which becomes that mark, and what stands
behind the `</s>` of an answer must have none in both ways.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from model_store.files.checkpoint_files import read_json

ChunkPrefix = Literal["", " "]

CONFIG_FILE: Final = "tokenizer_config.json"
FAST_FILE: Final = "tokenizer.json"
# transformers 5 builds these from pieces and `legacy` alone; a tokenizer.json of any other class is used as it stands.
_LLAMA_CLASSES: Final = ("LlamaTokenizer", "LlamaTokenizerFast")


def chunk_prefix(folder: Path) -> ChunkPrefix:
    """What stands before the first chunk and before the one behind the placeholder; `folder` holds the tokenizer.

    Raises ModelError when a file of it cannot be read.
    """
    config = read_json(folder / CONFIG_FILE)
    if is_llama(config):
        return "" if config["legacy"] else " "
    fast = read_json(folder / FAST_FILE) if (folder / FAST_FILE).is_file() else {}
    return " " if _marks_the_beginning_only(fast) else ""


def with_explicit_legacy(config: dict[str, Any], fast: Mapping[str, Any] | None) -> dict[str, Any]:
    """The tokenizer's config with `legacy` said, where it matters and was left to the reader.

    Left out it meant true to the transformers that LLaVA was published with (4.37), and means false to vLLM's. A
    `tokenizer.json` shows what its writer took it for.
    """
    if not is_llama(config) or config.get("legacy") is not None:
        return config
    return {**config, "legacy": not (fast and _marks_the_beginning_only(fast))}


def is_llama(config: Mapping[str, Any]) -> bool:
    """Whether `tokenizer_config.json` names Llama's own tokenizer."""
    return config.get("tokenizer_class") in _LLAMA_CLASSES


def _marks_the_beginning_only(fast: Mapping[str, Any]) -> bool:
    """Whether a `tokenizer.json` puts `▁` before the first stretch of a text and before no other."""
    step = fast.get("pre_tokenizer") or {}
    steps = step.get("pretokenizers", [step])
    return any(one.get("type") == "Metaspace" and one.get("prepend_scheme") == "first" for one in steps)
