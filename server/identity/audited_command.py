"""Commands in the audit log: who works at the machine itself changes keys and erases tenants, past the API."""

import getpass
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from server.identity.audit_chain import AuditEvent
from server.identity.audit_log import AuditLog
from server.slides.slide_record import now
from server.storage.slide_store import SlideStore


@dataclass
class CommandOutcome:
    """What a command notes for the line that it ends with."""

    tenant: str | None = None
    about: dict[str, str] = field(default_factory=dict)
    erased: dict[str, int] = field(default_factory=dict)
    write: Callable[[AuditEvent], Awaitable[int]] | None = None
    event: AuditEvent | None = None

    async def note_slide(self, slide_id: str) -> None:
        """A line for a slide that the command has done its work on."""
        if self.write is not None and self.event is not None:
            await self.write(replace(self.event, at=now(), slide=slide_id))


@asynccontextmanager
async def audited_command(
    folder: Path | None, store: SlideStore, action: str, tenant: str | None = None
) -> AsyncIterator[CommandOutcome]:
    """A line before the block and one behind it, in a chain of their own; without a folder there is no log.

    Raises:
        AuditUnavailable: the block must not, or did not, do what it tells of.
    """
    outcome = CommandOutcome(tenant)
    if folder is None:
        yield outcome
        return
    log = AuditLog(folder)
    event = AuditEvent(at=now(), action=action, phase="begun", tenant=tenant, who=f"user {_user()}")
    try:
        begun = await log.write(event)
        outcome.write, outcome.event = log.write, replace(event, phase="done", outcome=200, begun=begun)
        status = 500
        try:
            yield outcome
            status = 200
        finally:
            done = replace(event, at=now(), phase="done", begun=begun, outcome=status, tenant=outcome.tenant)
            await log.write(replace(done, about=outcome.about, erased=outcome.erased))
    finally:
        await log.aclose(store)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
