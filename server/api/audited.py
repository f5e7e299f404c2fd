"""Requests in the audit log: nothing is answered before its line is on the disk, nor changed before a first one.

    GET     ─────────────────── read ── line ── answer
    others  ── line `begun` ── changed ── line ── answer

So what is in no log was not done: a process that is killed between the two lines of a change leaves the first. Requests
of nobody (401) reach nothing and have no line.
"""

import re
from collections.abc import Awaitable, Callable

from fastapi import Request
from starlette.types import Message, Receive, Scope, Send

from server.api.request_log import request_id_of
from server.errors import AuditUnavailable
from server.identity.audit_chain import AuditEvent, Phase
from server.identity.audit_log import AuditLog
from server.identity.purpose_of_use import PURPOSE_HEADER, purpose_of_use
from server.slides.slide_record import now
from server.storage.slide_store import SLIDE_ID_PATTERN

_LOOKS = frozenset({"GET", "HEAD", "OPTIONS"})
# Ids of our own making. Anything else in an address is a client's text, which may name a patient.
_OUR_ID = re.compile(r"(?:[a-z]{2,12}_)?[0-9a-f]{32,64}|conv_[A-Za-z0-9_-]{22}")
_SLIDE, _QUESTION, _PURPOSE, _BEGUN = "audited_slide", "audited_question", "audited_purpose", "audited_begun"


class _NotRecorded(Exception):
    """The answer was not sent. Not one of ours, so that nothing on the way makes another answer of it."""

    def __init__(self, cause: AuditUnavailable) -> None:
        super().__init__()
        self.cause = cause


def note_slide(request: Request, slide_id: str | None) -> None:
    """Which slide the request turned out to be about, where its address does not say it."""
    request.scope["state"][_SLIDE] = slide_id


def note_question(request: Request, text: str) -> None:
    """What was asked; kept only where the operator has chosen so."""
    request.scope["state"][_QUESTION] = text


async def begin(request: Request, log: AuditLog | None) -> None:
    """The purpose is noted and, before a change, that it begins. The caller is known and may do it.

    Raises:
        InvalidRequest: the purpose is none.
        AuditUnavailable: nothing must be done.
    """
    state = request.scope["state"]
    state[_PURPOSE] = purpose_of_use(request.headers.get(PURPOSE_HEADER))
    if log is not None and request.method not in _LOOKS:
        state[_BEGUN] = await log.write(_event(request.scope, "begun", None, keeps_questions=False))


async def recorded(
    log: AuditLog,
    keeps_questions: bool,
    handle: Callable[[Scope, Receive, Send], Awaitable[None]],
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """What `handle` does, with its line written before the first byte of its answer goes out.

    Raises:
        AuditUnavailable: in place of the answer.
    """
    is_written = False

    async def send_recorded(message: Message) -> None:
        nonlocal is_written
        if message["type"] == "http.response.start" and "caller" in scope["state"]:
            event = _event(scope, "done", message["status"], keeps_questions)
            try:
                await log.write(event)
            except AuditUnavailable as error:
                raise _NotRecorded(error) from error
            is_written = True
        await send(message)

    try:
        await handle(scope, receive, send_recorded)
    except _NotRecorded as kept_back:
        raise kept_back.cause from None
    except Exception:
        if not is_written and "caller" in scope["state"]:
            await log.write(_event(scope, "done", 500, keeps_questions))
        raise


def _event(scope: Scope, phase: Phase, outcome: int | None, keeps_questions: bool) -> AuditEvent:
    state, named = scope["state"], scope["path_params"]
    caller = state["caller"]
    about = {name.removesuffix("_id"): str(value) for name, value in named.items() if _OUR_ID.fullmatch(str(value))}
    slide = state.get(_SLIDE) or about.pop("slide", None)
    return AuditEvent(
        at=now(),
        action=f"{scope['method']} {scope['route'].path}",
        phase=phase,
        outcome=outcome,
        tenant=caller.tenant,
        who=caller.name,
        slide=slide if slide and SLIDE_ID_PATTERN.fullmatch(slide) else None,
        about=about,
        purpose=state.get(_PURPOSE),
        request_id=request_id_of(scope),
        begun=state.get(_BEGUN) if phase == "done" else None,
        question=state.get(_QUESTION) if keeps_questions else None,
    )
