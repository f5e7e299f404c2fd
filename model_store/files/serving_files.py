"""Writes the files that vLLM reads beside weights and tokenizer: config, generation defaults, chat template."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_store.chat_template import chat_template
from model_store.convert.llava_config import ServedConfig, served_config
from model_store.convert.write_tokenizer import added_token_id
from model_store.files.chunk_prefix import chunk_prefix
from model_store.manifest import Manifest


def write_serving_files(
    folder: Path,
    config: ServedConfig,
    manifest: Manifest,
    image_token_id: int,
    quantization: Mapping[str, Any] | None = None,
) -> None:
    """Writes them into `folder`, which holds the tokenizer already: the chat template depends on it.

    `quantization` is vLLM's `quantization_config` for weights that are quantised.
    """
    write_json(folder / "config.json", served_config(config, manifest, image_token_id, quantization))
    write_json(folder / "generation_config.json", _generation_config(config, manifest, folder))
    template = chat_template(manifest.prompt, chunk_prefix(folder))
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Indented, for people who look into the folder."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _generation_config(config: ServedConfig, manifest: Manifest, folder: Path) -> dict[str, Any]:
    """Token ids alone: vLLM would take a published temperature, top_p or length as the default of every request."""
    stops = [added_token_id(folder, token, "which ends an answer") for token in manifest.llm.generation.stop_tokens]
    ends = [config.eos_token_id, *(stop for stop in stops if stop != config.eos_token_id)]
    ids: dict[str, Any] = {"bos_token_id": config.bos_token_id, "eos_token_id": ends if len(ends) > 1 else ends[0]}
    return ids if config.pad_token_id is None else ids | {"pad_token_id": config.pad_token_id}
