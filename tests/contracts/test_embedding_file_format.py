"""The embedding file as anyone can read it: plain safetensors, plain string metadata."""

from pathlib import Path

import numpy as np
from safetensors import safe_open

from encoders.embedding_file import to_bytes
from encoders.types import SlideEmbedding


def test_plain_safetensors_reads_tensors_and_metadata(tmp_path: Path) -> None:
    tokens = np.random.default_rng(0).standard_normal((576, 768)).astype(np.float16)
    embedding = SlideEmbedding("0" * 64, "f" * 16, {"slide_tokens": tokens}, 1_234, "property", "2026-11-21T12:00:00Z")
    (tmp_path / "e.safetensors").write_bytes(to_bytes(embedding))

    with safe_open(tmp_path / "e.safetensors", framework="numpy") as file:
        assert np.array_equal(file.get_tensor("slide_tokens"), tokens)
        metadata = file.metadata()
        assert len(metadata.pop("sha256")) == 64  # ours alone: the rest of the contract is as it was
        assert metadata == {
            "format_version": "1",
            "slide_id": "0" * 64,
            "encoder_id": "f" * 16,
            "tile_count": "1234",
            "mpp_source": "property",
            "created_at": "2026-11-21T12:00:00Z",
        }
