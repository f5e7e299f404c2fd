"""The encoder id: one short name for everything that changes an embedding, so that no stale one can be served."""

import hashlib
import json

from model_store.installed import InstalledModel

# Raised whenever our own code changes the numbers it makes from the same slide and weights.
NUMERICS_VERSION = 3
_ID_CHARS = 16


def encoder_id(model: InstalledModel, mpp_override: float | None = None, features_sha256: str | None = None) -> str:
    """First 16 hex digits of the SHA-256 of canonical JSON: weights, tiling, both encoders, numerics, override.

    Batch size is left out: it changes speed, not the embedding. An override is part of the id because the same
    slide gives other tiles with it; so is the digest of a features file that stands in for the slide's pixels.
    """
    manifest = model.manifest
    identity: dict[str, object] = {
        "numerics_version": NUMERICS_VERSION,
        "tiling": manifest.tiling.model_dump(mode="json"),
        "tile_encoder": manifest.tile_encoder.model_dump(mode="json", exclude={"batch_tiles", "weights"}),
        "tile_encoder_sha256": model.digests[manifest.tile_encoder.weights],
        "slide_encoder": manifest.slide_encoder.model_dump(mode="json", exclude={"weights"}),
        "slide_encoder_sha256": model.digests[manifest.slide_encoder.weights],
    }
    if mpp_override is not None:
        identity["mpp_override"] = float(mpp_override)
    if features_sha256 is not None:
        identity["features_sha256"] = features_sha256
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:_ID_CHARS]
