"""On which tissue an answer rests: parts of the slide are left out, and the very same answer is scored without them.

A worker makes the rows without each part from stored features, and vLLM says how likely the answer is behind them, one
prefill each. What is scored is the prompt that was answered, with the earlier turns that were given.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis.exceptions import RedisError

from encoders.embedding_file import from_bytes
from encoders.errors import EvidenceUnavailable, RegionsUnavailable, StoredFileDamaged
from encoders.evidence.cells import FINER_SIDE, SIDE, Cell, divide, evidence_id, left_out, parts_of
from server.asking.answer_warnings import AnswerWarning
from server.asking.conversations import Conversation, Conversations, Turn
from server.asking.evidence import CAPTION, AreaDrops, Choice, Evidence, choices_of, weigh
from server.asking.language_model import Message
from server.asking.questions import conversation_messages
from server.asking.scope import RegionScope, scope_warnings
from server.asking.score_evidence import AnswerScoring, Baseline, Costs
from server.asking.served_models import ServedModel, ServedModels
from server.embeddings.slide_inputs import SlideInput
from server.embeddings.tile_places import TilePlacesCache
from server.encoding.derived_jobs import DerivedJobs
from server.errors import NotFound, RegionNotReady
from server.flow.queue_encode import QueueEncode
from server.slides.catalogue import SlideCatalogue
from server.slides.evidence_record import EvidenceRecord, EvidenceShelf
from server.slides.progress import Event
from server.slides.region_record import RegionRecord, Regions, SlideRegion
from server.slides.slide_record import SlideRecord, now
from server.slides.usage import Usage
from server.storage.slide_store import SlideStore

_LEAST_TILES = 16
_HALF_BYTES = 2
# A file of rows is a matter of seconds, behind other evidence of half a minute; then there is no worker.
_PART_WAIT_S = 90.0
_FIRST_LOOK_S, _LAST_LOOK_S = 0.05, 0.5
EMBEDDINGS, SCORES = "embeddings", "scores"


@dataclass(frozen=True)
class EvidenceLimits:
    """Bytes of rows, and requests to vLLM at once."""

    most_bytes: int
    at_once: int


@dataclass(frozen=True)
class SlideEvidence:
    """Evidence of a slide, as one model sees it: whose rows are meant."""

    slide: SlideRecord
    name: str


@dataclass(frozen=True)
class OpenEvidence:
    """An answer whose evidence is about to be looked for; `slide` are the rows that it was answered from."""

    model: ServedModel
    wanted: SlideEvidence
    record: EvidenceRecord
    region: RegionRecord | None
    conversation: Conversation
    turn: Turn
    slide: SlideInput
    cells: Sequence[Cell]
    tiles: int


@dataclass(frozen=True)
class ShowEvidence:
    """Looks for the evidence of remembered answers."""

    slides: SlideCatalogue
    conversations: Conversations
    models: ServedModels
    encodes: QueueEncode
    regions: Regions
    places: TilePlacesCache
    store: SlideStore
    evidence: EvidenceShelf
    jobs: DerivedJobs
    usage: Usage
    limits: EvidenceLimits

    async def open(
        self, tenant: str, slide_id: str, conversation_id: str, number: int, parent: str | None
    ) -> OpenEvidence:
        """Find the answer and what is to be left out, and have a worker make the rows.

        Raises:
            NotFound, WrongConversation, ConversationDamaged: there is no such answer.
            EvidenceUnavailable, UnknownCell: it cannot be looked for.
            SlideNotReady, SlideFailed, QuotaExceeded, Overloaded, QueueUnavailable: not now.
        """
        await self.slides.require(tenant, slide_id)
        conversation = await self.conversations.continue_or_start(tenant, slide_id, conversation_id)
        if not 1 <= number <= len(conversation.turns):
            raise NotFound("The conversation has no such turn; its turns are numbered from 1.")
        turn = conversation.turns[number - 1]
        model = self.models.named(turn.model)
        slide = await self.slides.require(tenant, slide_id, model.name)
        _require_tiles(model)
        if turn.encoder_id != slide.encoder_id:
            raise EvidenceUnavailable(
                "The slide was encoded anew since that answer; ask again, then look for evidence."
            )
        if turn.given is None:
            raise EvidenceUnavailable("The answer is of an older release; ask again, then look for evidence.")
        region = await self._region(slide, turn)
        places, chosen = await self._chosen(slide, region)
        if len(chosen) < _LEAST_TILES:
            raise EvidenceUnavailable(f"Fewer than {_LEAST_TILES} tiles of tissue: there is too little to leave out.")
        cells = await asyncio.to_thread(divide, places.coords[chosen], places.side_px, parent)
        self._require_small(model, len(chosen), len(cells))
        rows = await self._rows(slide, model, region)
        name = evidence_id(slide.id, slide.encoder_id, None if region is None else region.id, parent)
        record = await self._kept(slide, region, parent, name, len(parts_of(left_out(cells, len(chosen), name))))
        wanted = SlideEvidence(slide, name)
        if not await self._has_part(wanted, record.parts - 1):
            await self.jobs.enqueue(wanted)
        return OpenEvidence(model, wanted, record, region, conversation, turn, rows, cells, len(chosen))

    async def stream(self, opened: OpenEvidence) -> AsyncGenerator[Event, None]:
        """`evidence`, then `progress` and `cell` events as they come, then `done`."""
        costs, about = Costs(), _about(opened)
        yield Event("evidence", {**about, "cells": [_cell_data(cell) for cell in opened.cells]})
        scoring = self._scoring(opened, costs)
        baseline = await scoring.baseline()
        drops: dict[str, AreaDrops] = {}
        made_ms = 0.0
        for number in range(opened.record.parts):
            rows = await self._part(opened, number)
            made_ms = costs.elapsed_ms()
            yield Event("progress", {"stage": EMBEDDINGS, "done": number + 1, "total": opened.record.parts})
            for name, found in (await scoring.drops(rows, baseline)).items():
                drops[name] = found
                yield Event("cell", {"cell": name, "drop": round(found.area, 4), "choices": _choices(found.choices)})
            yield Event("progress", {"stage": SCORES, "done": len(drops), "total": len(opened.cells)})
        evidence = weigh(opened.cells, drops)
        yield Event("done", {**about, **_done_data(evidence, baseline), "costs": _costs_data(costs, made_ms)})

    def _scoring(self, opened: OpenEvidence, costs: Costs) -> AnswerScoring:
        """Over the prompt that was answered, with the very turns that were given then."""
        turn, model = opened.turn, opened.model
        given = tuple(it for it in opened.conversation.turns if it.number in (turn.given or ()))
        before = opened.conversation.model_copy(update={"turns": given})
        control = model.control_text
        asked = conversation_messages(opened.slide, before, control.removed_from(turn.question), control)
        return AnswerScoring(
            model=model,
            slide=opened.wanted.slide,
            asked=asked,
            answer=Message("assistant", control.cleaned(turn.answer)),
            choices=choices_of(turn.question, turn.answer),
            places=asyncio.Semaphore(self.limits.at_once),
            costs=costs,
        )

    async def _region(self, slide: SlideRecord, turn: Turn) -> RegionRecord | None:
        if not isinstance(turn.scope, RegionScope):
            return None
        region = await self.regions.find(slide.paths, turn.scope.region_id)
        if region is None or region.encoder_id != slide.encoder_id:
            raise EvidenceUnavailable("The region of that answer was dropped; draw it and ask again.")
        return region

    async def _chosen(self, slide: SlideRecord, region: RegionRecord | None) -> tuple[Any, NDArray[np.int64]]:
        try:
            if region is not None:
                return await self.places.inside(slide, await asyncio.to_thread(lambda: region.drawn))
            places = await self.places.find(slide)
            return places, np.arange(len(places.coords))
        except RegionsUnavailable as error:
            raise EvidenceUnavailable(
                "Nobody knows where the tiles of this slide lie; there is no evidence."
            ) from error

    def _require_small(self, model: ServedModel, tiles: int, cells: int) -> None:
        """Before anything is made: rows times width times all that is left out."""
        manifest = model.manifest
        rows = min(tiles, manifest.most_rows) * manifest.row_width * _HALF_BYTES
        if 2 * cells * rows > self.limits.most_bytes:
            raise EvidenceUnavailable(
                "The slide has too many rows for this model to leave parts of it out; ask about a smaller region."
            )

    async def _rows(self, slide: SlideRecord, model: ServedModel, region: RegionRecord | None) -> SlideInput:
        """What was asked about."""
        found = None
        with contextlib.suppress(StoredFileDamaged):
            found = await model.asked_slides.find(slide if region is None else SlideRegion(slide, region.id))
        if found is not None:
            return found
        if region is not None:
            raise RegionNotReady("The region is not at hand any more; ask about it again.", retry_after_s=1)
        await self.encodes.refuse_unencoded(slide, model.name)

    async def _kept(
        self, slide: SlideRecord, region: RegionRecord | None, parent: str | None, name: str, parts: int
    ) -> EvidenceRecord:
        """The record, kept and used from now on; whoever asks again has a failure tried again."""
        known = await self.evidence.find(slide.paths, name)
        await self.usage.require_room(slide.tenant, 0)
        record = EvidenceRecord(
            id=name,
            slide_id=slide.id,
            encoder_id=slide.encoder_id,
            outline=None if region is None else region.outline,
            parent=parent,
            parts=parts,
            created_at=now() if known is None else known.created_at,
            used_at=now(),
        )
        async with self.slides.lock(slide.tenant, slide.id):
            stored = await self.slides.find(slide.tenant, slide.id)
            if stored is None or stored.generation != slide.generation:
                raise NotFound("The slide was deleted meanwhile.")
            freed = await self.evidence.make_room(slide.paths, name)
            more = await self.evidence.keep(slide.paths, record)
        with contextlib.suppress(RedisError):  # counted anew within a day
            await self.usage.count_stored(slide.tenant, more - freed)
        return record

    async def _has_part(self, wanted: SlideEvidence, number: int) -> bool:
        return await self.store.exists(wanted.slide.paths.evidence_part(wanted.name, number))

    async def _part(self, opened: OpenEvidence, number: int) -> Mapping[str, NDArray[Any]]:
        """The rows in one file, once a worker has made it.

        Raises:
            EvidenceUnavailable, RegionNotReady: it cannot be made, or is not in time.
        """
        paths, pause_s = opened.wanted.slide.paths, _FIRST_LOOK_S
        try:
            async with asyncio.timeout(_PART_WAIT_S):
                while (content := await self.store.get(paths.evidence_part(opened.wanted.name, number))) is None:
                    await self._require_makable(opened.wanted)
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, _LAST_LOOK_S)
        except TimeoutError:
            raise RegionNotReady("No worker is free to make this evidence; try again.", retry_after_s=10) from None
        try:
            part = await asyncio.to_thread(from_bytes, content)
            if (part.slide_id, part.region_id) != (opened.wanted.slide.id, opened.wanted.name):
                raise StoredFileDamaged("These rows are another slide's.")
        except StoredFileDamaged:  # made again, and all behind it: a worker goes on where files end
            for damaged in range(number, opened.record.parts):
                await self.store.delete(paths.evidence_part(opened.wanted.name, damaged))
            raise RegionNotReady("Stored rows were damaged and are made anew; try again.", retry_after_s=1) from None
        return part.tensors

    async def _require_makable(self, wanted: SlideEvidence) -> None:
        record = await self.evidence.find(wanted.slide.paths, wanted.name)
        if record is None:
            raise NotFound("The slide, or what was made for this evidence, is gone; look for it again.")
        if record.error is not None:
            raise EvidenceUnavailable(f"The evidence could not be made ({record.error.code}): {record.error.detail}")


def _require_tiles(model: ServedModel) -> None:
    if model.manifest.reads != "tiles":
        raise EvidenceUnavailable(
            "This model is given regions, patches and cells of the slide; leaving them out one by one is not offered. "
            "GET /v1/slides/{id}/levels shows which it was given."
        )
    if len(model.manifest.inputs) != 1:
        raise EvidenceUnavailable("This model keeps too little of a slide to leave parts of it out; ask another one.")


def _about(opened: OpenEvidence) -> dict[str, Any]:
    """What every event of substance says first: whose answer it is."""
    turn, manifest = opened.turn, opened.model.manifest
    side = SIDE if opened.record.parent is None else FINER_SIDE
    warnings: tuple[AnswerWarning, ...] = scope_warnings(opened.wanted.slide, opened.region)
    return {
        "conversation_id": opened.conversation.id,
        "turn": turn.number,
        "question": turn.question,
        "answer": turn.answer,
        "model": opened.model.name,
        "encoder_id": opened.wanted.slide.encoder_id,
        "scope": turn.scope.model_dump(),
        "notice": manifest.notice,
        "warnings": [warning.as_data for warning in warnings],
        "caption": CAPTION,
        "parent": opened.record.parent,
        "rows": side,
        "columns": side,
    }


def _cell_data(cell: Cell) -> dict[str, Any]:
    place = {name: round(getattr(cell, name), 1) for name in ("x", "y", "width", "height")}
    return {"cell": cell.name, **place, "tiles": len(cell.tiles)}


def _choices(choices: Sequence[Choice]) -> list[dict[str, Any]]:
    return [
        {"choice": it.choice, "probability": round(it.probability, 4), "without": round(it.without or 0.0, 4)}
        for it in choices
    ]


def _done_data(evidence: Evidence, baseline: Baseline) -> dict[str, Any]:
    cells = [
        {
            **_cell_data(it.cell),
            "drop": round(it.drop, 4),
            "control": round(it.control, 4),
            "stands_out": it.stands_out,
            "choices": _choices(it.choices),
        }
        for it in evidence.cells
    ]
    return {
        "cells": cells,
        "stands_out": bool(evidence.strongest),
        "strongest": list(evidence.strongest),
        "threshold": round(evidence.threshold, 4),
        "finding": evidence.finding,
        "log_likelihood": round(baseline.log_likelihood, 4),
        "choices": [{"choice": name, "probability": round(share, 4)} for name, share in baseline.shares.items()],
    }


def _costs_data(costs: Costs, made_ms: float) -> dict[str, Any]:
    return {
        "requests": costs.requests,
        "prefill_tokens": costs.prefill_tokens,
        "rows_ms": made_ms,
        "total_ms": costs.elapsed_ms(),
    }
