"""`eyepiece models`: which models there are, and making the demo model. Nothing reaches for the network."""

from importlib import resources
from pathlib import Path
from typing import Any

from model_store.errors import ModelError
from model_store.installed import open_model
from model_store.manifest import Manifest, packaged_manifest
from server.commands.terminal import print_json


def show(models_dir: Path, as_json: bool) -> None:
    """One line for each model that is known or installed."""
    names = sorted({*_packaged_names(), *_folders(models_dir)})
    rows = [_describe(models_dir, name) for name in names]
    if as_json:
        print_json({"models": rows})
        return
    for row in rows:
        print(f"{row['name']:<14} {row['state']:<14} {row['title']}")


def make_demo(models_dir: Path) -> None:
    """The untrained demo model; keeps one that is complete and current."""
    from training.untrained_demo import make_untrained_demo  # torch

    model = make_untrained_demo(models_dir)
    print(f"{model.manifest.name} is installed in {model.folder}")


def _packaged_names() -> list[str]:
    manifests = resources.files("model_store") / "manifests"
    return [entry.name.removesuffix(".toml") for entry in manifests.iterdir() if entry.name.endswith(".toml")]


def _folders(models_dir: Path) -> list[str]:
    if not models_dir.is_dir():
        return []
    return [path.name for path in models_dir.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _describe(models_dir: Path, name: str) -> dict[str, Any]:
    """`state` is installed, not installed, or damaged with the reason under `problem`."""
    if not (models_dir / name).is_dir():
        return _row(packaged_manifest(name), "not installed")
    try:
        return _row(open_model(models_dir, name).manifest, "installed")
    except ModelError as error:
        return {"name": name, "state": "damaged", "title": error.detail, "licence": None}


def _row(manifest: Manifest, state: str) -> dict[str, Any]:
    return {"name": manifest.name, "state": state, "title": manifest.title, "licence": manifest.licence}
