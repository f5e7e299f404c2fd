"""The slide part of a request to vLLM: made of an embedding, and kept in memory while a slide is being asked about."""

import asyncio
import base64
import hashlib
import hmac
import io
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_store.contracts.slide_rows import ROWS
from server.embeddings.cache import CachedEmbedding, Embedded, EmbeddingCache, region_of, slide_of
from server.slides.slide_record import SlideRecord

# Some hundred slides of 576 tokens × 768 numbers: more than clinicians of one replica look at in an hour.
MEMORY_BYTES = 256 * 2**20


@dataclass(frozen=True)
class SlideInput:
    """A slide as vLLM gets it: base64 of a .npy, its cache key, its size, and the key that replicas are chosen by."""

    npy_base64: str
    uuid: str
    slide_tokens: int
    route_key: str


class SlideInputs:
    """Makes the slide part of a request.

    The uuid is the only key of vLLM's multimodal cache (vllm-project/vllm#55547), so it covers all that the
    projected rows depend on, and the tenant: two tenants never share an entry.
    """

    def __init__(self, llm_digest: str, secret: str) -> None:
        self._llm_digest = llm_digest
        self._secret = secret.encode()

    def make(self, tenant: str, cached: CachedEmbedding) -> SlideInput:
        """The slide part for one tenant's cached embedding."""
        embedding = cached.embedding
        rows = np.ascontiguousarray(embedding.tensors[ROWS])
        key = hashlib.sha256(cached.content)
        key.update("\x00".join(("", embedding.encoder_id, self._llm_digest, tenant)).encode())
        return SlideInput(
            npy_base64=npy_base64(rows),
            uuid=key.hexdigest(),
            slide_tokens=len(rows),
            route_key=self.keyed_hash("route", tenant, embedding.slide_id),
        )

    def make_rows(self, slide: SlideRecord, rows: np.ndarray[Any, Any]) -> SlideInput:
        """The slide part for rows of a slide that lie in no file of their own: their key is of themselves."""
        rows = np.ascontiguousarray(rows)
        key = hashlib.sha256(rows.tobytes())
        said = ("rows", str(rows.shape), str(rows.dtype), slide.encoder_id, self._llm_digest, slide.tenant)
        key.update("\x00".join(said).encode())
        return SlideInput(
            npy_base64=npy_base64(rows),
            uuid=key.hexdigest(),
            slide_tokens=len(rows),
            route_key=self.keyed_hash("route", slide.tenant, slide.id),
        )

    def keyed_hash(self, *parts: str) -> str:
        """A name for `parts` that says nothing about them to who lacks the secret."""
        return hmac.new(self._secret, "\x00".join(parts).encode(), hashlib.sha256).hexdigest()


class SlideInputCache:
    """Slide inputs of the embedding cache; those used last stay in this process, at most `memory_bytes` of them.

    Whoever asks for one has just read the slide's record, so the slide is there; an embedding of one upload and one
    encoder never changes. Redis is told behind the answer that its copy is in use, and one that it has no more (an
    operator flushed it) is forgotten here too: the next question fills Redis again.
    """

    def __init__(self, embeddings: EmbeddingCache, inputs: SlideInputs, memory_bytes: int = MEMORY_BYTES) -> None:
        self._embeddings = embeddings
        self._inputs = inputs
        self._memory_bytes = memory_bytes
        self._kept: OrderedDict[tuple[str, ...], SlideInput] = OrderedDict()
        self._kept_bytes = 0
        self._renewing: dict[tuple[str, ...], asyncio.Task[None]] = {}

    async def find(self, record: Embedded) -> SlideInput | None:
        """The slide or region as vLLM gets it, or None while it is not encoded.

        Raises:
            StoredFileDamaged: as EmbeddingCache.find.
        """
        slide = slide_of(record)
        key = (slide.tenant, slide.id, slide.generation, slide.encoder_id, region_of(record) or "")
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
            self._renew_behind(record, key)
            return kept
        cached = await self._embeddings.find(record)
        self._drop(key)
        if cached is None:
            return None
        made = self._inputs.make(slide.tenant, cached)
        self._keep(key, made)
        return made

    async def settled(self) -> None:
        """Once Redis has been told of all that was used."""
        await asyncio.gather(*self._renewing.values())

    def _renew_behind(self, record: Embedded, key: tuple[str, ...]) -> None:
        if key not in self._renewing:  # questions that come together are told of once
            self._renewing[key] = asyncio.create_task(self._renew(record, key))

    async def _renew(self, record: Embedded, key: tuple[str, ...]) -> None:
        try:
            if not await self._embeddings.renew(record):
                self._drop(key)
        finally:
            del self._renewing[key]

    def _keep(self, key: tuple[str, ...], made: SlideInput) -> None:
        self._drop(key)
        self._kept[key] = made
        self._kept_bytes += len(made.npy_base64)
        while self._kept_bytes > self._memory_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: tuple[str, ...]) -> None:
        dropped = self._kept.pop(key, None)
        if dropped is not None:
            self._kept_bytes -= len(dropped.npy_base64)


def npy_base64(rows: np.ndarray[Any, Any]) -> str:
    """A .npy file: no torch here, no pickle there."""
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    return base64.b64encode(buffer.getbuffer()).decode()
