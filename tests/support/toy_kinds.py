"""Models of every documented kind with random weights: docs/add-a-model.md's own tables, laid out as it says."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.numpy import save_file
from untrained_model import WORDS, untrained_tokenizer

from encoders.expected_shapes import expected_shapes
from model_store.compose import compose_model
from model_store.convert.llava_config import ServedConfig, served_shapes
from model_store.installed import InstalledModel
from model_store.manifest import Manifest, parse_manifest
from model_store.manifest_text import manifest_text
from training.language_model import qwen_tokenizer
from training.language_model.demo_tokenizer import PLACEHOLDER
from training.seeded_weights import seeded_weights

PAGE = Path(__file__).resolve().parents[2] / "docs" / "add-a-model.md"
# As wide as the documented tile features, so that they can do without a projector; in two heads of 32, vLLM's smallest.
HIDDEN = 64
_PROJECTOR = "model.mm_projector."


def documented() -> tuple[dict[str, Any], dict[tuple[str, str], dict[str, Any]]]:
    """The whole manifest of the page, and its other tables by their name and kind."""
    whole, *tables = (tomllib.loads(text) for text in re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL))
    own = {name: whole[name] for name in ("slide_stage", "projector", "prompt")}
    blocks = [own, {"inputs": whole["inputs"]}, *tables]
    named = [named for block in blocks for named in block.items()]
    # Of an input, the tile encoder is what has kinds.
    tiles = [("tile_encoder", table["tiles"]["tile_encoder"]) for name, table in named if name == "inputs"]
    return whole, {(name, table["kind"]): table for name, table in [*named, *tiles] if name != "inputs"}


def documented_manifest(*kinds: tuple[str, str], **changes: Any) -> Manifest:
    """The page's manifest with these tables in place of its own, and other changes of whole tables."""
    whole, tables = documented()
    chosen = {name: tables[name, kind] for name, kind in kinds}
    [(name, given)] = whole["inputs"].items()
    inputs = {name: {**given, "tile_encoder": chosen.pop("tile_encoder", given["tile_encoder"])}}
    said = {**whole, "inputs": inputs, **chosen, **changes}
    return parse_manifest(manifest_text(Manifest.model_validate(said)))


def toy_of(manifest: Manifest, scratch: Path, seed: int = 0) -> InstalledModel:
    """Random weights in the documented folder, installed under `<scratch>/models`."""
    folder, rng = scratch / "folder", np.random.default_rng(seed)
    shapes = toy_encoders(manifest, folder, rng)
    (folder / "manifest.toml").write_text(manifest_text(manifest))
    write_toy_llm(folder, manifest, "qwen2" if manifest.prompt.kind == "chatml" else "llama", rng)
    return compose_model(folder, scratch / "models", shapes)


def toy_encoders(manifest: Manifest, folder: Path, rng: np.random.Generator) -> dict[str, dict[str, tuple[int, ...]]]:
    """Random weights of all encoders where the manifest says; returns their shapes by file."""
    shapes = expected_shapes(manifest)
    for file, tensors in shapes.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        save_file(seeded_weights(tensors, rng), folder / file)
    return shapes


def write_toy_llm(
    folder: Path, manifest: Manifest, family: Literal["llama", "qwen2"], rng: np.random.Generator
) -> None:
    """A language model of random weights in `<folder>/llm`, and its projector beside, where there is one."""
    llm = folder / "llm"
    llm.mkdir(parents=True)
    vocabulary = write_qwen_tokenizer(llm) if family == "qwen2" else _write_llama_tokenizer(llm)
    said = {
        "model_type": family,
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
    (llm / "config.json").write_text(json.dumps(said))
    projector = {"mm_hidden_size": manifest.projector_width, "mm_projector_type": manifest.projector.plugin_type}
    weights = seeded_weights(served_shapes(ServedConfig.model_validate({**said, **projector, "family": family})), rng)
    mine = {name.removeprefix(_PROJECTOR): weights.pop(name) for name in sorted(weights) if name.startswith(_PROJECTOR)}
    # Large enough beside what the layers add that another slide makes another answer.
    weights["model.embed_tokens.weight"] *= 4
    save_file(weights, llm / "model.safetensors", metadata={"format": "pt"})
    if mine:
        (folder / "projector").mkdir()
        save_file(mine, folder / "projector" / "model.safetensors")


def write_qwen_tokenizer(llm: Path) -> int:
    """Of the words of the untrained model; how many tokens it has."""
    return qwen_tokenizer.write_qwen_tokenizer((f" {word}" for word in WORDS), llm)


def _write_llama_tokenizer(llm: Path) -> int:
    """Without the placeholder, as a published one is."""
    document = json.loads(untrained_tokenizer().to_str())
    document["added_tokens"] = [token for token in document["added_tokens"] if token["content"] != PLACEHOLDER]
    (llm / "tokenizer.json").write_text(json.dumps(document))
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    (llm / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **tokens}))
    return len(document["model"]["vocab"])
