"""A report is written: each section's question is put to the slide by itself, and what all answered is kept at the end.

A report is whole or it is not there: when one section breaks off, nothing is kept.
"""

import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import structlog
from redis.exceptions import RedisError

from server.asking.choices import checked_choices
from server.asking.questions import OpenAnswer, Question, notice_data, question_text
from server.errors import NotFound, ReportInterrupted
from server.flow.answer_question import AnswerQuestion
from server.reports.report_record import (
    ReportedDoubt,
    ReportedModel,
    ReportedSlide,
    ReportRecord,
    ReportSection,
    ReportShelf,
    require_room,
)
from server.reports.report_template import ReportTemplate, TemplateSection
from server.slides.catalogue import SlideCatalogue
from server.slides.progress import Event
from server.slides.slide_record import SlideRecord, now
from server.slides.usage import Usage
from server.webhooks.event import report_event
from server.webhooks.outbox import Outbox

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class OpenReport:
    """A report that is about to be written; its first section is being answered."""

    tenant: str
    template: ReportTemplate
    model: str | None
    request_id: str
    first: OpenAnswer


@dataclass(frozen=True)
class WriteReport:
    """Writes reports about slides of all tenants."""

    slides: SlideCatalogue
    answering: AnswerQuestion
    reports: ReportShelf
    usage: Usage
    outbox: Outbox

    async def open(
        self, tenant: str, slide_id: str, template: ReportTemplate, model: str | None, request_id: str
    ) -> OpenReport:
        """Look at all questions, and put the first; the caller streams the rest or closes `first`.

        Raises:
            InvalidRequest, QuestionTooLong: one of them cannot be asked.
            NotFound, SlideNotReady, SlideFailed, QuotaExceeded, …: nothing was asked.
        """
        served = self.answering.models.named(model)
        for section in template.sections:
            question_text(section.question, self.answering.max_question_chars, served.control_text)
            checked_choices(section.choices, served.control_text)
        record = await self.slides.require(tenant, slide_id, served.name)
        require_room(await self.reports.numbers(record.paths))
        first = await self._ask(tenant, slide_id, template.sections[0], model, request_id)
        return OpenReport(tenant, template, model, request_id, first)

    async def stream(
        self, opened: OpenReport, before_each: Callable[[], Awaitable[object]]
    ) -> AsyncGenerator[Event, None]:
        """`report` with the headings; of each section `token` … and `section`; then `done` with the report as it is
        kept. `before_each` is asked before each section but the first, and may refuse it.

        Raises:
            EyepieceError: a section broke off, or the slide is gone or was encoded anew meanwhile; nothing is kept.
        """
        slide = opened.first.record
        headings = [section.heading for section in opened.template.sections]
        yield Event("report", {"title": opened.template.title, "sections": headings, **notice_data(opened.first)})
        sections: list[ReportSection] = []
        for number, section in enumerate(opened.template.sections, 1):
            asked = opened.first
            if number > 1:
                await before_each()
                asked = await self._ask(opened.tenant, slide.id, section, opened.model, opened.request_id)
            try:
                if asked.record.encoder_id != slide.encoder_id or asked.record.generation != slide.generation:
                    raise ReportInterrupted("The slide was encoded anew while its report was written; ask again.")
                async with aclosing(self.answering.stream(asked)) as events:
                    async for event in events:
                        if event.name == "token":
                            yield Event("token", {"section": number, **event.data})
                        elif event.name == "done":
                            sections.append(_section(section, event.data))
                            yield Event("section", {"section": number, **sections[-1].model_dump(mode="json")})
            finally:
                await asked.answer.close()
        kept = await self._keep(opened, sections)
        yield Event("done", kept.model_dump(mode="json"))

    async def _ask(
        self, tenant: str, slide_id: str, section: TemplateSection, model: str | None, request_id: str
    ) -> OpenAnswer:
        question = Question(section.question, model=model, request_id=request_id, choices=section.choices)
        return await self.answering.open(tenant, slide_id, question)

    async def _keep(self, opened: OpenReport, sections: list[ReportSection]) -> ReportRecord:
        """Keep the report beside its slide, and tell of it, unless the slide was deleted meanwhile."""
        slide, model = opened.first.record, opened.first.model
        record = ReportRecord(
            id=f"rep_{secrets.token_hex(16)}",
            number=0,
            title=opened.template.title,
            created_at=now(),
            request_id=opened.request_id,
            slide=_as_it_is(slide),
            model=ReportedModel(
                name=model.name,
                weights_digest=model.weights_digest,
                encoder_id=slide.encoder_id,
                notice=model.manifest.notice,
            ),
            sections=tuple(sections),
        )
        async with self.slides.lock(slide.tenant, slide.id):
            stored = await self.slides.find(slide.tenant, slide.id)
            if stored is None or stored.generation != slide.generation:
                raise NotFound("The slide was deleted while its report was written.")
            record = record.model_copy(update={"slide": _as_it_is(stored)})
            kept, size_bytes = await self.reports.keep(slide.paths, record)
            await self.usage.count_stored(slide.tenant, size_bytes)
        try:
            await self.outbox.add(report_event(slide.tenant, slide.id, kept.id, kept.number, model.name))
        except RedisError as error:  # the report is kept; only its receivers do not hear of it
            log.warning("report_not_told", error=type(error).__name__)
        return kept


def _section(section: TemplateSection, done: dict[str, Any]) -> ReportSection:
    return ReportSection(
        heading=section.heading,
        question=section.question,
        answer=done["answer"],
        choices=done["choices"],
        warnings=tuple(ReportedDoubt(code=it["code"], detail=it["detail"]) for it in done["warnings"]),
        conversation_id=done["conversation_id"],
        turn=done["turn"],
    )


def _as_it_is(slide: SlideRecord) -> ReportedSlide:
    return ReportedSlide(
        id=slide.id,
        filename=slide.filename,
        study_uid=slide.study_uid,
        series_uid=slide.series_uid,
        metadata=slide.metadata,
    )
