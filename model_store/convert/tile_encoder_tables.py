"""Published tile encoders that differ from each other in arguments alone: a table for each, to write a manifest with.

`[tile_encoder]` of such a file goes into an input of a manifest (`[inputs.tiles.tile_encoder]`) as it stands; nothing
here is a model that can be served alone.
"""

import tomllib
from importlib import resources

from pydantic import BaseModel, ConfigDict

from model_store.contracts.fields import Positive, PositiveFloat
from model_store.contracts.tile_encoder import TimmTileEncoder


class TileEncoderTable(BaseModel):
    """One published tile encoder; `tile_px` and `target_mpp` are the tiles that it wants."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    repository: str
    gated: bool
    licence: str
    parameters: Positive
    tile_px: Positive
    target_mpp: PositiveFloat
    tile_encoder: TimmTileEncoder


def tile_encoder_tables() -> dict[str, TileEncoderTable]:
    """All that ship with Eyepiece, by name."""
    files = (resources.files("model_store") / "tile_encoders").iterdir()
    texts = {file.name.removesuffix(".toml"): file.read_text(encoding="utf-8") for file in files}
    return {name: TileEncoderTable.model_validate(tomllib.loads(text)) for name, text in sorted(texts.items())}
