"""Name and shape of every tensor of a manifest's encoders, read off the architectures: no weights, no memory."""

from torch import nn

from encoders.slide_encoder.encode import empty_slide_encoder
from encoders.tile_encoder.model import empty_tile_encoder
from model_store.convert.convert_model import EncoderShapes
from model_store.manifest import Manifest


def expected_shapes(manifest: Manifest) -> EncoderShapes:
    """What `model_store` compares files with; raises ModelError when a manifest describes no possible encoder."""
    return EncoderShapes(
        tile_encoder=_shapes(empty_tile_encoder(manifest.tile_encoder)),
        slide_encoder=_shapes(empty_slide_encoder(manifest.slide_encoder)),
    )


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
