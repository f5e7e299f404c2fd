"""Makes the demo model: tiny, seeded, untrained, and in exactly the layout of a published one.

It exists so that the whole path can be run, and tested, on a bare machine. Its answers mean nothing, and its
manifest's notice says so.
"""

import tempfile
from pathlib import Path

import numpy as np

from encoders.expected_shapes import expected_shapes
from model_store.errors import ModelError
from model_store.installed import MANIFEST_FILE, InstalledModel, open_model
from model_store.manifest import Manifest, packaged_manifest_text, parse_manifest
from model_store.sha256sums import write_sums
from training.demo_language_model import write_language_model
from training.seeded_weights import seeded_weights, write_weights

NAME = "demo"


def make_untrained_demo(models_dir: Path, seed: int = 0) -> InstalledModel:
    """Installs the demo model under `models_dir`; keeps a complete one made from the same manifest and seed.

    Built beside its place and renamed into it, so an interrupted run leaves nothing that looks like a model.
    """
    text = packaged_manifest_text(NAME).replace('revision = "seed-0"', f'revision = "seed-{seed}"')
    if not _is_current(models_dir, text):
        models_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{NAME}-", dir=models_dir) as beside:
            built = Path(beside) / NAME
            _build(built, text, seed)
            _publish(built, models_dir / NAME, Path(beside) / "replaced")
    return open_model(models_dir, NAME)


def _is_current(models_dir: Path, text: str) -> bool:
    try:
        model = open_model(models_dir, NAME)
    except ModelError:
        return False
    return (model.folder / MANIFEST_FILE).read_text(encoding="utf-8") == text


def _build(folder: Path, text: str, seed: int) -> None:
    manifest = parse_manifest(text)
    rng = np.random.default_rng(seed)
    folder.mkdir()
    (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")
    _write_encoders(folder, manifest, rng)
    (folder / manifest.llm.path).mkdir()
    write_language_model(folder / manifest.llm.path, manifest, rng)
    write_sums(folder)


def _write_encoders(folder: Path, manifest: Manifest, rng: np.random.Generator) -> None:
    expected = expected_shapes(manifest)
    for weights, shapes in (
        (manifest.tile_encoder.weights, expected.tile_encoder),
        (manifest.slide_encoder.weights, expected.slide_encoder),
    ):
        (folder / weights).parent.mkdir()
        write_weights(folder / weights, seeded_weights(shapes, rng))


def _publish(built: Path, place: Path, replaced: Path) -> None:
    if place.exists():
        place.rename(replaced)
    built.rename(place)
