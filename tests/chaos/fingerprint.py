"""What two embedding files must have in common, however often the encode of one was killed."""

import hashlib
from pathlib import Path

from encoders.embedding_file import from_bytes
from encoders.types import SlideEmbedding

# Everything but `created_at`.
Fingerprint = tuple[str, str, int, str, tuple[tuple[str, str, tuple[int, ...], str], ...]]


def fingerprint(embedding: SlideEmbedding) -> Fingerprint:
    """Identity, tile count, source of the µm/px, and each tensor's name, dtype, shape and SHA-256 of its bytes."""
    tensors = tuple(
        (name, str(tensor.dtype), tensor.shape, hashlib.sha256(tensor.tobytes()).hexdigest())
        for name, tensor in sorted(embedding.tensors.items())
    )
    return embedding.slide_id, embedding.encoder_id, embedding.tile_count, embedding.mpp_source, tensors


def stored_fingerprint(path: Path) -> Fingerprint:
    """The fingerprint of an embedding file."""
    return fingerprint(from_bytes(path.read_bytes()))
