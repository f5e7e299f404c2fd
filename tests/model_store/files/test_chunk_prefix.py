"""Which tokenizers need a space where LLaVA begins a new chunk, and what `legacy` means when nobody said it."""

import json
from pathlib import Path
from typing import Any

import pytest

from model_store.files.chunk_prefix import chunk_prefix, with_explicit_legacy

LLAMA = {"tokenizer_class": "LlamaTokenizer"}
FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}
FIRST = {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}}
ALWAYS = {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}}
NESTED = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, FIRST["pre_tokenizer"]]}}
PREPEND = {"normalizer": {"type": "Prepend", "prepend": "▁"}, "pre_tokenizer": None}
BYTES = {"pre_tokenizer": {"type": "ByteLevel"}}


@pytest.mark.parametrize(
    ("config", "fast", "prefix"),
    [
        ({**LLAMA, "legacy": True}, None, ""),
        ({**LLAMA, "legacy": False}, None, " "),
        ({**LLAMA, "tokenizer_class": "LlamaTokenizerFast", "legacy": False}, PREPEND, " "),
        ({**LLAMA, "legacy": True}, FIRST, ""),
        (FAST, FIRST, " "),
        (FAST, NESTED, " "),
        (FAST, ALWAYS, ""),
        (FAST, PREPEND, ""),
        (FAST, BYTES, ""),
        (FAST, {}, ""),
        (FAST, None, ""),
    ],
)
def test_only_a_tokenizer_that_marks_the_beginning_alone_needs_a_space(
    tmp_path: Path, config: dict[str, Any], fast: dict[str, Any] | None, prefix: str
) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    if fast is not None:
        (tmp_path / "tokenizer.json").write_text(json.dumps(fast))

    assert chunk_prefix(tmp_path) == prefix


@pytest.mark.parametrize(
    ("config", "fast", "legacy"),
    [
        (LLAMA, None, True),
        ({**LLAMA, "legacy": None}, None, True),
        (LLAMA, PREPEND, True),
        (LLAMA, ALWAYS, True),
        (LLAMA, FIRST, False),
        ({**LLAMA, "legacy": False}, None, False),
        ({**LLAMA, "legacy": True}, FIRST, True),
    ],
)
def test_legacy_left_out_means_what_it_meant_when_llava_was_published(
    config: dict[str, Any], fast: dict[str, Any] | None, legacy: bool
) -> None:
    assert with_explicit_legacy(config, fast)["legacy"] is legacy


def test_other_tokenizers_know_no_legacy() -> None:
    assert with_explicit_legacy(FAST, FIRST) == FAST
