"""A question is put to each slide of a case, one after the other, and each answers for itself.

No model here was made for several slides at once, so nothing is made of the answers together: who asks sees which slide
answered what, and which did not.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from model_store.errors import EyepieceError
from server.asking.choices import checked_choices
from server.asking.questions import Question, question_text
from server.errors import Draining, InvalidRequest, NotFound
from server.flow.answer_question import AnswerQuestion
from server.flow.list_slides import ListSlides
from server.slides.progress import Event
from server.slides.public_slide import Slide
from server.uploads.slide_metadata import SlideMetadata

# More than a case of a hospital has; each takes the seconds of an answer.
MOST_SLIDES_ASKED = 50
_PAGE = 100


@dataclass(frozen=True)
class OpenCase:
    """Slides that are about to be asked, newest first."""

    tenant: str
    case: str
    slides: tuple[Slide, ...]
    question: Question


@dataclass(frozen=True)
class AskCase:
    """Finds the slides of cases of all tenants, and asks them."""

    listing: ListSlides
    answering: AnswerQuestion

    async def slides_of(self, tenant: str, case: str, most: int) -> tuple[list[Slide], bool]:
        """Up to `most` slides of the case, newest first, and whether there are more.

        Raises:
            NotFound: there is none.
        """
        wanted, cursor, found = SlideMetadata(case=case), "", list[Slide]()
        while len(found) <= most:
            page = await self.listing.described(tenant, wanted, cursor=cursor, limit=_PAGE)
            found += page.slides
            if page.next_cursor is None:
                break
            cursor = page.next_cursor
        if not found:
            raise NotFound("No slide is of this case; say `case` when slides are uploaded, or PATCH them.")
        return found[:most], len(found) > most

    async def open(self, tenant: str, case: str, chosen: Sequence[str] | None, question: Question) -> OpenCase:
        """The slides that are to be asked: all of the case, or the `chosen` ones of it. Nothing is asked yet.

        Raises:
            NotFound: there is no such case.
            InvalidRequest, QuestionTooLong: no slide could be asked so, or one that is chosen is not of the case.
        """
        model = self.answering.models.named(question.model)
        question_text(question.text, self.answering.max_question_chars, model.control_text)
        checked_choices(question.choices, model.control_text)
        slides, are_more = await self.slides_of(tenant, case, _PAGE)
        if chosen is not None:
            of_case = {slide.id: slide for slide in slides}
            if not set(chosen) <= of_case.keys():
                raise InvalidRequest("A slide of `slides` is not of this case; look at GET /v1/cases.")
            slides, are_more = [of_case[slide_id] for slide_id in dict.fromkeys(chosen)], False
        if are_more or len(slides) > MOST_SLIDES_ASKED:
            raise InvalidRequest(
                f"More than {MOST_SLIDES_ASKED} slides are not asked at once; name some of the case in `slides`."
            )
        return OpenCase(tenant, case, tuple(slides), question)

    async def stream(
        self, opened: OpenCase, before_each: Callable[[], Awaitable[object]]
    ) -> AsyncGenerator[Event, None]:
        """`case` with the slides; of each slide `notice`, `token` … and `answer`, or `refused`; at the end `done` with
        all of it. Every event but the first and the last says which slide it is of.

        `before_each` is asked before each slide but the first, and may refuse it.

        Raises:
            Draining: the rest is not asked.
        """
        slides = [_shown(slide) for slide in opened.slides]
        yield Event("case", {"case": opened.case, "question": opened.question.text, "slides": slides})
        outcomes: list[dict[str, Any]] = []
        for number, slide in enumerate(opened.slides):
            try:
                if number:
                    await before_each()
                async with aclosing(self._answer(opened, slide.id)) as events:
                    async for event in events:
                        if event.name == "answer":
                            outcomes.append({"slide_id": slide.id, "answer": event.data, "error": None})
                        yield event
            except Draining:
                raise
            except EyepieceError as error:
                refusal = {"slide_id": slide.id, "code": error.code, "detail": error.detail}
                outcomes.append({"slide_id": slide.id, "answer": None, "error": refusal})
                yield Event("refused", refusal)
        yield Event(
            "done", {"case": opened.case, "question": opened.question.text, "slides": slides, "answers": outcomes}
        )

    async def _answer(self, opened: OpenCase, slide_id: str) -> AsyncGenerator[Event, None]:
        question = replace(opened.question, conversation_id=None, region=None)
        asked = await self.answering.open(opened.tenant, slide_id, question)
        try:
            async with aclosing(self.answering.stream(asked)) as events:
                async for event in events:
                    name = "answer" if event.name == "done" else event.name
                    yield Event(name, {"slide_id": slide_id, **event.data})
        finally:
            await asked.answer.close()


def _shown(slide: Slide) -> dict[str, Any]:
    return {
        "slide_id": slide.id,
        "filename": slide.filename,
        "status": slide.status,
        "stain": slide.stain,
        "body_site": slide.body_site,
    }
