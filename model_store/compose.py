"""`models compose`: a model of one's own, from a folder with a manifest and weights; what vLLM reads beside is written.

NAME/manifest.toml             the composition (docs/add-a-model.md)
NAME/…                         the encoders' weights, where the manifest says
NAME/projector/model.safetensors   for a projector of kind `mlp`: 0.weight, 0.bias, 2.weight, 2.bias
NAME/llm/                      a Hugging Face folder: config.json, safetensors, tokenizer
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final, assert_never

from safetensors.torch import save_file

from model_store.contracts.prompt import ChatmlPrompt, LlavaPrompt
from model_store.convert.llava_config import read_served_config
from model_store.convert.write_tokenizer import copy_tokenizer, write_tokenizer
from model_store.errors import ModelError
from model_store.files.checkpoint_files import read_shard, shards_of
from model_store.files.serving_files import write_json, write_serving_files
from model_store.files.sha256sums import read_sums, write_sums
from model_store.files.staged_folder import staged_model
from model_store.files.write_safetensors import Shape
from model_store.installed import InstalledModel, open_model
from model_store.manifest import MANIFEST_FILE, Manifest, load_manifest
from model_store.verify import verify_shapes

PROJECTOR: Final = "projector/model.safetensors"
_INDEX: Final = "model.safetensors.index.json"
_NAMES: Final = "model.mm_projector."


def compose_model(folder: Path, models_dir: Path, shapes: Mapping[str, Mapping[str, Shape]]) -> InstalledModel:
    """Installs it under the manifest's name, in place of an earlier installation; `shapes` are the encoders', by file.

    Nothing of a network is run: shapes are compared. Raises ModelError naming the file, field or tensor at fault.
    """
    manifest = load_manifest(folder / MANIFEST_FILE)
    with staged_model(models_dir, manifest.name) as staged:
        for path in (MANIFEST_FILE, *manifest.weights_files().values()):
            _copy(folder, staged, path)
        _fill_llm(folder, staged / manifest.llm.path, manifest)
        write_sums(staged)
        verify_shapes(InstalledModel(staged, manifest, read_sums(staged)), shapes)
    return open_model(models_dir, manifest.name)


def _fill_llm(folder: Path, served: Path, manifest: Manifest) -> None:
    source = folder / manifest.llm.path
    config = read_served_config(source / "config.json", manifest)
    served.mkdir(parents=True, exist_ok=True)
    files = {shard.name: sorted(read_shard(shard)) for shard in shards_of(source)}
    for name in files:
        if not name.endswith(".safetensors"):
            raise ModelError(f"llm/{name} is a pickle; save the language model as safetensors.")
        _copy(source, served, name)
    if manifest.projector.kind == "mlp":
        if not (folder / PROJECTOR).is_file():
            raise ModelError(f"The folder lacks {PROJECTOR}; the manifest's projector is of kind 'mlp'.")
        projector = {_NAMES + name: tensor for name, tensor in read_shard(folder / PROJECTOR).items()}
        save_file(projector, served / "projector.safetensors", metadata={"format": "pt"})
        files["projector.safetensors"] = sorted(projector)
    weight_map = {name: file for file, names in files.items() for name in names}
    write_json(served / _INDEX, {"metadata": {}, "weight_map": weight_map})
    write_serving_files(served, config, manifest, _write_tokenizer(source, served, manifest, config.vocab_size))


def _write_tokenizer(source: Path, served: Path, manifest: Manifest, vocab_size: int) -> int:
    """Puts the tokenizer there; the placeholder's id, of a token that is added or there already."""
    prompt = manifest.prompt
    match prompt:
        case LlavaPrompt():
            return write_tokenizer(source, served, prompt.placeholder, vocab_size)
        case ChatmlPrompt():
            return copy_tokenizer(source, served, prompt.placeholder)
        case _:
            assert_never(prompt)


def _copy(folder: Path, target: Path, path: str) -> None:
    if not (folder / path).is_file():
        raise ModelError(f"The folder lacks {path}; docs/add-a-model.md says what belongs into it.")
    (target / path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / path, target / path)
