"""A tiny untrained model whose slides take a second or two each on a CPU: long enough to be hit in the middle."""

from pathlib import Path

from untrained_model import changed_manifest, untrained_model

from model_store.installed import InstalledModel

# Not `demo`: that name is installed anew from what ships with Eyepiece.
NAME = "chaos"
_CHANGES = (
    ('name = "demo"', f'name = "{NAME}"'),  # the served name too
    ("depth = 2, num_classes", "depth = 16, num_classes"),
    ("embed_dim = 96\ndepth = 2", "embed_dim = 96\ndepth = 64"),
    # Many batches, so that there is a moment between any two of them.
    ("batch_tiles = 32", "batch_tiles = 2"),
)


def slow_model(models_dir: Path) -> InstalledModel:
    """Writes it under `models_dir`; always the same bytes."""
    return untrained_model(models_dir, text=changed_manifest(*_CHANGES))
