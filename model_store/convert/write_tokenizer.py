"""The published tokenizer with one token more: the placeholder for a slide.

Pieces and ids stay as published; only `<image>` is added, just beyond them and outside the language model's vocabulary,
and `legacy` is said where it was left out.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Final

from model_store.convert.llava_checkpoint import TOKENIZER_FILES
from model_store.errors import ModelError
from model_store.files.checkpoint_files import read_json
from model_store.files.chunk_prefix import CONFIG_FILE, FAST_FILE, with_explicit_legacy

_PIECES_FILE: Final = "tokenizer.model"  # SentencePiece, as Llama and Vicuna publish it
# A special token that is matched as it stands, spaces around it left alone.
_FLAGS: Final = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def write_tokenizer(published: Path, folder: Path, placeholder: str, vocab_size: int) -> int:
    """Copies the tokenizer's files, adds the placeholder, and returns its id.

    Raises ModelError when a file is missing, or when the tokenizer has the placeholder already.
    """
    if not any((published / name).is_file() for name in (FAST_FILE, _PIECES_FILE)):
        raise ModelError(f"The checkpoint has no {_PIECES_FILE} or {FAST_FILE}; get the file.")
    documents = {name: read_json(published / name) for name in TOKENIZER_FILES if _is_json(published / name)}
    documents[CONFIG_FILE] = with_explicit_legacy(documents[CONFIG_FILE], documents.get(FAST_FILE))
    added = _added_tokens(documents)
    if placeholder in added:
        raise ModelError(f"The checkpoint's tokenizer has a token {placeholder!r} already; it is not a LLaVA v1.5 one.")
    placeholder_id = max([vocab_size, *(token_id + 1 for token_id in added.values())])
    _add(documents, placeholder, placeholder_id)
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if (published / _PIECES_FILE).is_file():
        shutil.copyfile(published / _PIECES_FILE, folder / _PIECES_FILE)
    return placeholder_id


def copy_tokenizer(published: Path, folder: Path, placeholder: str) -> int:
    """Copies a tokenizer that has the placeholder already, as Qwen's have, and returns that token's id.

    Raises ModelError when a file or the token is missing.
    """
    there = [name for name in TOKENIZER_FILES if (published / name).is_file()]
    for name in dict.fromkeys((CONFIG_FILE, FAST_FILE, *there)):
        if name not in there:
            raise ModelError(f"The language model's folder lacks {name}; get the file.")
        shutil.copyfile(published / name, folder / name)
    return added_token_id(folder, placeholder, "where a slide's rows would stand")


def added_token_id(folder: Path, token: str, what: str) -> int:
    """The id of a token of the tokenizer in `folder`; raises ModelError when there is none."""
    added = _added_tokens({name: read_json(folder / name) for name in TOKENIZER_FILES if _is_json(folder / name)})
    if token not in added:
        raise ModelError(f"The tokenizer has no token {token!r}, {what}.")
    return added[token]


def _is_json(path: Path) -> bool:
    # tokenizer_config.json is required: reading it fails with the right sentence when it is missing.
    return path.name == CONFIG_FILE or (path.suffix == ".json" and path.is_file())


def _added_tokens(documents: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Ids of the tokens that were added to the pieces, wherever a version of transformers wrote them down."""
    decoder: dict[str, dict[str, Any]] = documents[CONFIG_FILE].get("added_tokens_decoder", {})
    fast: list[dict[str, Any]] = documents.get(FAST_FILE, {}).get("added_tokens", [])
    return {
        **{token["content"]: int(token_id) for token_id, token in decoder.items()},
        **{token["content"]: token["id"] for token in fast},
        **documents.get("added_tokens.json", {}),
    }


def _add(documents: dict[str, dict[str, Any]], placeholder: str, placeholder_id: int) -> None:
    token = {"content": placeholder, **_FLAGS}
    documents[CONFIG_FILE].setdefault("added_tokens_decoder", {})[str(placeholder_id)] = token
    if FAST_FILE in documents:
        documents[FAST_FILE].setdefault("added_tokens", []).append({"id": placeholder_id, **token})
