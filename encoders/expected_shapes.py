"""Name and shape of every tensor of a manifest's encoders, read off the architectures: no weights, no memory."""

from torch import nn

from encoders.slide_stages.empty_parts import empty_parts
from encoders.tile_encoder.model import empty_tile_encoder
from model_store.files.write_safetensors import Shape
from model_store.manifest import Manifest


def expected_shapes(manifest: Manifest) -> dict[str, dict[str, Shape]]:
    """By file of weights, what `model_store` compares files with.

    Raises ModelError when a manifest describes no possible encoder.
    """
    tiles = {it.tile_encoder.weights: empty_tile_encoder(it.tile_encoder) for it in manifest.inputs.values()}
    return {file: _shapes(model) for file, model in {**tiles, **empty_parts(manifest.slide_stage)}.items()}


def _shapes(model: nn.Module) -> dict[str, Shape]:
    """Without the counters that batch norms keep while they are trained: they compute nothing."""
    tensors = model.state_dict().items()
    return {name: tuple(it.shape) for name, it in tensors if not name.endswith(".num_batches_tracked")}
