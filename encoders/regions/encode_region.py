"""A region of an encoded slide in, its embedding out: the slide stage over the stored features of its tiles or levels.

No pixel is read and no tile is encoded. Coordinates stay the slide's, so a tile's position code is what it was in the
slide.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from encoders.caller import Caller
from encoders.errors import RegionsUnavailable, UnusableRegion
from encoders.pipeline import Encoders, slide_turn
from encoders.precomputed.given_features import GivenTiles, TileStatements
from encoders.regions.outline import Outline
from encoders.regions.stored_tiles import StoredFile, read_kept_levels, read_tile_features, read_tile_places
from encoders.regions.tile_places import region_id
from encoders.slide_stages.hierarchical import HierarchicalStage
from encoders.slide_stages.tile_stage import TileStage
from encoders.types import SlideEmbedding


@dataclass(frozen=True)
class DrawnRegion:
    """A region by name, the encoding of the slide that it was drawn on, and its outline."""

    region_id: str
    slide_id: str
    encoder_id: str
    outline: Outline


def encode_region(region: DrawnRegion, encoders: Encoders, features: StoredFile, caller: Caller) -> SlideEmbedding:
    """The region's embedding, from the slide's features file.

    Raises RegionError, StoredFileDamaged, EncodeCancelled, EncoderOverflowed, DeviceOutOfMemory or DeviceLost.
    """
    places = read_tile_places(features)
    chosen = places.require_inside(region.outline)
    coords = places.coords[chosen]
    if region_id(region.slide_id, region.encoder_id, coords) != region.region_id:
        raise UnusableRegion("The slide's tiles are not those that the region was drawn on; draw it again.")
    stage = encoders.stage
    if isinstance(stage, HierarchicalStage):
        kept = read_kept_levels(features, chosen)
        make = partial(stage.encode_kept, kept, coords)
    elif isinstance(stage, TileStage) and len(encoders.inputs) == 1:
        rows = read_tile_features(features, chosen)
        make = partial(stage.encode_given, GivenTiles(rows, coords, TileStatements(tile_px_level0=places.side_px)))
    else:
        raise RegionsUnavailable("This model keeps too little of a slide for a region of it; ask another one.")
    with slide_turn(encoders.slide_turn, caller):
        tensors = make(caller.ask)
    return SlideEmbedding(
        slide_id=region.slide_id,
        encoder_id=region.encoder_id,
        tensors=tensors,
        tile_count=len(chosen),
        mpp_source=places.mpp_source,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        region_id=region.region_id,
    )
