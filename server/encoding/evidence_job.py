"""One evidence job: the rows of a slide without some of its tiles, published in parts as they are made."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from prometheus_client import Counter

from encoders.caller import Caller
from encoders.embedding_file import to_bytes
from encoders.types import SlideEmbedding
from server.encoding.derived_job import DerivedJob, StoredFile
from server.encoding.derived_jobs import DerivedKind
from server.slides.evidence_record import EvidenceRecord
from server.slides.slide_record import SlideRecord
from server.to_the_end import to_the_end

# From that part on.
MakeEvidence = Callable[[EvidenceRecord, StoredFile, Caller, int], Iterator[SlideEmbedding]]


@dataclass(frozen=True)
class EvidenceJob(DerivedJob[EvidenceRecord, MakeEvidence]):
    """Makes evidence. A killed attempt's parts stay."""

    kind: ClassVar[DerivedKind] = "evidence"

    @property
    def counter(self) -> Counter:
        """Of evidence."""
        return self.metrics.evidence

    async def is_made(self, slide: SlideRecord, record: EvidenceRecord) -> bool:
        """Whether all parts are there; they come in order."""
        return await self.store.exists(slide.paths.evidence_part(record.id, record.parts - 1))

    async def make(self, slide: SlideRecord, record: EvidenceRecord, features: StoredFile) -> str:
        """Every part that is not there."""
        first = 0
        while await self.store.exists(slide.paths.evidence_part(record.id, first)):
            first += 1
        loop, make = asyncio.get_running_loop(), self.makes[slide.model]

        def made(caller: Caller) -> str:
            for number, part in enumerate(make(record, features, caller, first), first):
                publishing = to_the_end(self._publish(slide, record, number, to_bytes(part)))
                outcome = asyncio.run_coroutine_threadsafe(publishing, loop).result()
                if outcome != "ready":
                    return outcome
            return "ready"

        return await self.in_thread(made)

    async def _publish(self, slide: SlideRecord, record: EvidenceRecord, number: int, content: bytes) -> str:
        key = slide.paths.evidence_part(record.id, number)
        if await self.store.create(key, content):
            await self.count_stored(slide, len(content))
        if await self.is_gone(slide):
            return "deleted"
        if await self.records.find(slide.paths, record.id) is None:
            for earlier in range(number + 1):
                await self.store.delete(slide.paths.evidence_part(record.id, earlier))
            return "dropped"
        return "ready"
