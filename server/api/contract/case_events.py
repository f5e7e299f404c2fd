"""Events of a question to the slides of a case, for the OpenAPI document."""

from typing import Any

from pydantic import BaseModel, Field

from server.api.contract.events import AnswerNotice, AnswerToken, StreamError, event, one_of
from server.api.routes.questions import Answer
from server.slides.public_slide import Status


class CaseSlide(BaseModel):
    """A slide that is asked."""

    slide_id: str
    filename: str
    status: Status
    stain: str | None
    body_site: str | None


class CaseBegun(BaseModel):
    """Data of the event `case`, the first."""

    case: str
    question: str
    slides: list[CaseSlide] = Field(description="In the order in which they are asked.")


class CaseNotice(AnswerNotice):
    """Data of the event `notice`: what must be known to read this slide's answer."""

    slide_id: str


class CaseToken(AnswerToken):
    """Data of the event `token`: the next piece of this slide's answer."""

    slide_id: str


class CaseAnswer(Answer):
    """Data of the event `answer`: all that a slide's answer is."""

    slide_id: str


class CaseRefusal(StreamError):
    """Data of the event `refused`: why a slide did not answer. Tokens that came before are no answer."""

    slide_id: str


class CaseOutcome(BaseModel):
    """What a slide answered, or why it did not: one of the two is null."""

    slide_id: str
    answer: CaseAnswer | None
    error: CaseRefusal | None


class CaseAnswers(CaseBegun):
    """Data of the event `done`, and the body with `stream: false`: what each slide answered, and nothing that is made
    of the answers together."""

    answers: list[CaseOutcome] = Field(description="One for each slide, in the order of `slides`.")


CASE_EVENT_SCHEMAS: dict[str, Any] = {
    "CaseBegunEvent": event("case", "CaseBegun", "Which slides are asked; the first event."),
    "CaseNoticeEvent": event("notice", "CaseNotice", "A slide begins to answer."),
    "CaseTokenEvent": event("token", "CaseToken", "Text of a slide's answer, as it is written."),
    "CaseAnswerEvent": event("answer", "CaseAnswer", "A slide's whole answer."),
    "CaseRefusedEvent": event("refused", "CaseRefusal", "A slide does not answer; the next one is asked."),
    "CaseDoneEvent": event("done", "CaseAnswers", "What each slide answered; the last event."),
    "CaseEvent": one_of(
        "An event of a question to a case: `case`; of each slide `notice`, `token` … and `answer`, or `refused`; then "
        "`done` or `error`.",
        "CaseBegunEvent",
        "CaseNoticeEvent",
        "CaseTokenEvent",
        "CaseAnswerEvent",
        "CaseRefusedEvent",
        "CaseDoneEvent",
        "ErrorEvent",
    ),
}
