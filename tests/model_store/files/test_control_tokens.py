"""The texts that a tokenizer takes for one token with a meaning are found wherever they were written down."""

import json
from pathlib import Path
from typing import Any

import pytest
from toy_kinds import documented_manifest, toy_of
from untrained_model import untrained_model

from model_store.errors import ModelError
from model_store.files.control_tokens import control_tokens

HWSI = Path(__file__).resolve().parents[4] / "shared" / "hwsi" / "tokenizer"


def added(content: str, special: bool) -> dict[str, Any]:
    return {"id": 9, "content": content, "special": special}


def written(folder: Path, **files: Any) -> Path:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_every_place_is_looked_at(tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        tokenizer={"added_tokens": [added("@begin@", True), added("<tool_call>", False), added("tumour", False)]},
        tokenizer_config={
            "added_tokens_decoder": {"7": added("@end@", True), "8": added("    ", True)},
            "bos_token": {"content": "@bos@"},
            "eos_token": "@eos@",
            "pad_token": None,
            "add_bos_token": True,
        },
        special_tokens_map={"unk_token": "@unk@", "additional_special_tokens": ["@more@", {"content": "@most@"}]},
        added_tokens={"</tool_call>": 3, "word": 4},
    )

    found = ["@begin@", "<tool_call>", "@end@", "@bos@", "@eos@", "@unk@", "@more@", "@most@", "</tool_call>"]

    assert control_tokens(folder) == set(found)


def test_a_qwen_and_a_llama_name_theirs(tmp_path: Path) -> None:
    manifest = documented_manifest()
    assert manifest.prompt.placeholder in control_tokens(toy_of(manifest, tmp_path / "qwen").llm_folder)
    assert {"<s>", "</s>", "<image>"} <= control_tokens(untrained_model(tmp_path / "llama").llm_folder)


def test_those_of_the_published_layout() -> None:
    if not HWSI.is_dir():
        pytest.skip("the reference vectors (../shared/hwsi) are not here")

    assert control_tokens(HWSI) == {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>"}


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)

    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        control_tokens(tmp_path)
