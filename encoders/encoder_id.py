"""The encoder id: one short name for everything that changes an embedding, so that no stale one can be served."""

import hashlib
import json
from typing import Any

from encoders.tile_budget import TileBudget
from model_store.contracts.tile_encoder import InputSpec
from model_store.installed import InstalledModel

# Raised whenever our own code changes the numbers it makes from the same slide and weights.
NUMERICS_VERSION = 3
_ID_CHARS = 16


def encoder_id(
    model: InstalledModel,
    mpp_override: float | None = None,
    features_sha256: str | None = None,
    budget: TileBudget | None = None,
) -> str:
    """First 16 hex digits of the SHA-256 of canonical JSON: weights, inputs, slide stage, numerics, override, budget.

    Every contract says itself what of it changes an embedding. An override is part of the id because the same
    slide gives other tiles with it; so are a tile budget, and the digest of a features file that stands in for the
    slide's pixels.
    """
    manifest = model.manifest
    inputs = {name: _input_identity(model, given) for name, given in manifest.inputs.items()}
    identity: dict[str, Any] = {
        "numerics_version": NUMERICS_VERSION,
        # A single input is not named: ids were given before there could be several.
        **(next(iter(inputs.values())) if len(inputs) == 1 else {"inputs": list(inputs.values())}),
        **manifest.slide_stage.identity(model.digests),
    }
    if mpp_override is not None:
        identity["mpp_override"] = float(mpp_override)
    if features_sha256 is not None:
        identity["features_sha256"] = features_sha256
    if budget is not None:
        identity["tile_budget"] = budget.identity()
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:_ID_CHARS]


def _input_identity(model: InstalledModel, given: InputSpec) -> dict[str, Any]:
    return {
        "tiling": given.tiling.model_dump(mode="json"),
        "tile_encoder": given.tile_encoder.identity(),
        "tile_encoder_sha256": model.digests[given.tile_encoder.weights],
    }
