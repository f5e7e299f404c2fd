"""A model on disk: `<models_dir>/<name>/`, found and described without loading any weights."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model_store.errors import ModelError
from model_store.files.sha256sums import file_digest, listed_files, read_sums
from model_store.manifest import MANIFEST_FILE, NAME_PATTERN, Manifest, load_manifest

# What vLLM cannot do without; the tokenizer's other files differ from model to model.
_LLM_FILES = ("config.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja")


@dataclass(frozen=True)
class InstalledModel:
    """A complete installation; `digests` are lower-case hex SHA-256 by path relative to `folder`."""

    folder: Path
    manifest: Manifest
    digests: Mapping[str, str]

    def file(self, path: str) -> Path:
        """One of its files, by its path in the folder as the manifest names it."""
        return self.folder / path

    @property
    def llm_folder(self) -> Path:
        """The Hugging Face folder that vLLM serves."""
        return self.folder / self.manifest.llm.path

    @property
    def weights_digest(self) -> str:
        """SHA-256 over the digests of all its files: encoders, projector and language model, and the manifest."""
        rows = [f"{digest}  {path}\n" for path, digest in sorted(self.digests.items())]
        return hashlib.sha256("".join(rows).encode()).hexdigest()

    @property
    def llm_digest(self) -> str:
        """SHA-256 over the digests of all files of `llm_folder`, however many shards the weights have."""
        prefix = f"{self.manifest.llm.path}/"
        rows = [f"{digest}  {path}\n" for path, digest in sorted(self.digests.items()) if path.startswith(prefix)]
        return hashlib.sha256("".join(rows).encode()).hexdigest()


def open_model(models_dir: Path, name: str) -> InstalledModel:
    """The installed model of that name; reads two small files and checks that every listed file is there.

    Raises ModelError when it is absent, incomplete or does not describe itself. Contents are not hashed:
    `verify_digests` does that.
    """
    folder = _folder_of(models_dir, name)
    model = InstalledModel(folder, load_manifest(folder / MANIFEST_FILE), read_sums(folder))
    if model.manifest.name != name:
        raise ModelError(f"The model installed as {name!r} says it is {model.manifest.name!r}; install it again.")
    _require_listed(model)
    _require_present(model)
    return model


def verify_digests(model: InstalledModel) -> None:
    """Hashes every file; raises ModelError naming the first that differs, is missing or is not listed."""
    _require_present(model)
    for path in listed_files(model.folder):
        if path not in model.digests:
            raise ModelError(f"Model {model.manifest.name!r} has a file it does not list: {path}. Remove it.")
        if file_digest(model.folder / path) != model.digests[path]:
            raise ModelError(f"Model {model.manifest.name!r}: {path} is not what was installed; install it again.")


def _folder_of(models_dir: Path, name: str) -> Path:
    if not re.fullmatch(NAME_PATTERN, name):
        raise ModelError("A model's name holds only lower-case letters, digits, '.', '_' and '-'.")
    folder = models_dir / name
    if not folder.is_dir():
        raise ModelError(f"Model {name!r} is not installed; install it or choose another one.")
    return folder


def _require_listed(model: InstalledModel) -> None:
    manifest = model.manifest
    llm = [f"{manifest.llm.path}/{file}" for file in _LLM_FILES]
    needed = [MANIFEST_FILE, *manifest.weights_files().values(), *llm]
    for path in needed:
        if path not in model.digests:
            raise ModelError(f"Model {manifest.name!r} lacks {path}; install it again.")


def _require_present(model: InstalledModel) -> None:
    for path in model.digests:
        if not (model.folder / path).is_file():
            raise ModelError(f"Model {model.manifest.name!r} lacks {path}; install it again.")
