"""The embedding file: one safetensors file, tensors by name, everything else as string metadata. Never pickle.

The same bytes lie in Redis and in the slide store. `sha256` in the metadata covers all the rest of the header and the
tensors, so that one flipped bit is noticed. Files from before there was a digest lack it and are read as they are
(docs/decisions/0017).
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from encoders.errors import StoredFileDamaged
from encoders.types import MppSource, SlideEmbedding

FORMAT_VERSION = "1"
# A safetensors file begins with the length of its JSON header, u64 little-endian.
_LENGTH_BYTES = 8
_DIGEST = "sha256"
_TENSOR_NAME = re.compile(r"^[a-z][a-z0-9_]{0,63}$")


class _Metadata(BaseModel):
    """The header's `__metadata__`: strings all, as safetensors wants it. What a newer release adds is not read."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format_version: Literal["1"]
    slide_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    encoder_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
    tile_count: Annotated[int, Field(ge=0)]
    mpp_source: MppSource
    created_at: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)$")]
    # Of a region's embedding; what lies beside a slide as evidence has a name of its own kind.
    region_id: Annotated[str, StringConstraints(pattern=r"^(reg|evi)_[0-9a-f]{32}$")] | None = None

    @model_validator(mode="after")
    def _only_given_slide_tokens_have_no_tile_count(self) -> Self:
        if self.tile_count == 0 and self.mpp_source != "features":
            raise ValueError("an embedding is made of at least one tile")
        return self


def to_bytes(embedding: SlideEmbedding) -> bytes:
    """The file's bytes; raises ValueError for an embedding that `from_bytes` would refuse."""
    metadata = {
        "format_version": FORMAT_VERSION,
        "slide_id": embedding.slide_id,
        "encoder_id": embedding.encoder_id,
        "tile_count": str(embedding.tile_count),
        "mpp_source": embedding.mpp_source,
        "created_at": embedding.created_at,
        **({} if embedding.region_id is None else {"region_id": embedding.region_id}),
    }
    _Metadata.model_validate(metadata)
    _check_tensors(embedding.tensors)
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in embedding.tensors.items()}
    header, data = _split(safetensors_numpy.save(tensors, metadata))
    return safetensors_numpy.save(tensors, {**metadata, _DIGEST: _digest(header, data)})


def from_bytes(data: bytes) -> SlideEmbedding:
    """The embedding in a file's bytes; raises StoredFileDamaged for one changed, cut, foreign or of another version."""
    try:
        metadata = _metadata(data)
        tensors = safetensors_numpy.load(data)
        _check_tensors(tensors)
    except (SafetensorError, ValidationError, ValueError, KeyError) as error:
        raise StoredFileDamaged("The stored embedding cannot be read; encode the slide again.") from error
    return SlideEmbedding(
        slide_id=metadata.slide_id,
        encoder_id=metadata.encoder_id,
        tensors=tensors,
        tile_count=metadata.tile_count,
        mpp_source=metadata.mpp_source,
        created_at=metadata.created_at,
        region_id=metadata.region_id,
    )


def _metadata(content: bytes) -> _Metadata:
    """safetensors' own `load` drops the metadata, so the header is read here."""
    header, data = _split(content)
    stated = header["__metadata__"].get(_DIGEST)
    if stated is not None and stated != _digest(header, data):
        raise ValueError("the file is not the one that was written")
    return _Metadata.model_validate(header["__metadata__"])


def _split(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """The parsed header, and the bytes of the tensors behind it."""
    end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    if end > len(content):
        raise ValueError("the header is longer than the file")
    header = json.loads(content[_LENGTH_BYTES:end])
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__"), dict):
        raise ValueError("the header has no metadata")
    return header, memoryview(content)[end:]


def _digest(header: Mapping[str, Any], data: memoryview) -> str:
    """Of all but itself: names, types, shapes, places, metadata, numbers; not of how the header is spelt."""
    metadata = {name: value for name, value in header["__metadata__"].items() if name != _DIGEST}
    covered = json.dumps({**header, "__metadata__": metadata}, sort_keys=True)
    digest = hashlib.sha256(covered.encode())
    digest.update(data)
    return digest.hexdigest()


def _check_tensors(tensors: Mapping[str, NDArray[np.generic]]) -> None:
    if not tensors:
        raise ValueError("an embedding has at least one tensor")
    for name, tensor in tensors.items():
        if not _TENSOR_NAME.match(name) or tensor.size == 0:
            raise ValueError("a tensor has a wrong name or is empty")
        if tensor.dtype.kind not in "fiub" or not np.isfinite(tensor).all():
            raise ValueError("a tensor is not a finite array of numbers")
