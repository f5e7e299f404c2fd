"""The end of a slide's time in the audit log: a line before it is deleted, and one that says what was."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from server.identity.audit_chain import AuditEvent
from server.identity.audit_log import AuditLog
from server.slides.slide_record import now

ACTION = "slide expires"


@asynccontextmanager
async def audited_expiry(log: AuditLog | None, tenant: str, slide_id: str) -> AsyncIterator[dict[str, int]]:
    """The block deletes the slide, and notes in numbers what was erased; without a log there are no lines.

    Raises:
        AuditUnavailable: the block must not begin, or what it did is not told.
    """
    erased: dict[str, int] = {}
    if log is None:
        yield erased
        return
    event = AuditEvent(at=now(), action=ACTION, phase="begun", tenant=tenant, who="retention", slide=slide_id)
    begun = await log.write(event)
    status = 500
    try:
        yield erased
        status = 200
    finally:
        await log.write(replace(event, at=now(), phase="done", begun=begun, outcome=status, erased=erased))
