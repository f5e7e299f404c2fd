"""The rows of a slide, or of a region, without some of its tiles: the slide stage over the stored features of the rest.

No pixel is read and no tile encoded. Coordinates stay the slide's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from encoders.caller import Caller
from encoders.errors import EvidenceUnavailable
from encoders.evidence.cells import divide, left_out, parts_of
from encoders.pipeline import Encoders, slide_turn
from encoders.precomputed.given_features import GivenTiles, TileStatements
from encoders.regions.outline import Outline
from encoders.regions.stored_tiles import StoredFile, read_tile_features, read_tile_places
from encoders.slide_stages.tile_stage import TileStage
from encoders.types import SlideEmbedding
from model_store.contracts.slide_rows import ROWS


@dataclass(frozen=True)
class WantedEvidence:
    """Evidence by name, the encoding of the slide that it is of, and of which part: a region's outline, one cell."""

    evidence_id: str
    slide_id: str
    encoder_id: str
    outline: Outline | None
    parent: str | None


def leave_out(
    wanted: WantedEvidence, encoders: Encoders, features: StoredFile, caller: Caller, first_part: int = 0
) -> Iterator[SlideEmbedding]:
    """Part by part from `first_part` on, the rows without what `left_out` names, under its names.

    Raises RegionError, StoredFileDamaged, EncodeCancelled, EncoderOverflowed, DeviceOutOfMemory or DeviceLost.
    """
    stage = encoders.stage
    if not isinstance(stage, TileStage) or len(encoders.inputs) != 1:
        raise EvidenceUnavailable("This model keeps too little of a slide to leave parts of it out; ask another one.")
    places = read_tile_places(features)
    everything = np.arange(len(places.coords))
    chosen = everything if wanted.outline is None else places.require_inside(wanted.outline)
    rows, coords = read_tile_features(features, chosen), places.coords[chosen]
    statements = TileStatements(tile_px_level0=places.side_px)
    cells = divide(coords, places.side_px, wanted.parent)
    for part in parts_of(left_out(cells, len(coords), wanted.evidence_id))[first_part:]:
        made = {}
        for missing in part:
            is_kept = np.ones(len(coords), dtype=bool)
            is_kept[missing.tiles] = False
            given = GivenTiles(rows[is_kept], coords[is_kept], statements)
            with slide_turn(encoders.slide_turn, caller):
                made[missing.name] = stage.encode_given(given, caller.ask)[ROWS]
        yield SlideEmbedding(
            slide_id=wanted.slide_id,
            encoder_id=wanted.encoder_id,
            tensors=made,
            tile_count=len(coords),
            mpp_source=places.mpp_source,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            region_id=wanted.evidence_id,
        )
