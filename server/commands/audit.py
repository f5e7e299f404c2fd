"""`eyepiece audit`: holds the audit log against itself and its marks, and gives it to auditors."""

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from server.commands.outcome import CommandError, ExitCode
from server.commands.terminal import print_json
from server.identity.audit_chain import AuditLine
from server.identity.audit_export import audit_events, lines_of
from server.identity.audit_verify import Flaw, Verification, verification
from server.settings import Settings
from server.storage.slide_store import open_store, require_tenant_name

_SHOWN_FLAWS = 20


@dataclass(frozen=True)
class ExportOptions:
    """What an auditor gets: of one tenant or of all, from a day or moment on, as FHIR or as written."""

    tenant: str | None
    since: str | None
    fhir: bool


def verify(settings: Settings, more_folders: list[Path], as_json: bool) -> None:
    """Says whether all lines are there as they were written.

    Raises:
        CommandError: they are not, or there is no log.
    """
    found = _open(settings, more_folders)
    for _ in found.read(_folders(settings, more_folders)):
        pass
    told = {"lines": found.lines, "writers": len(found.chains), "open_ends": found.open_ends}
    if as_json:
        flaws = [{"file": flaw.file, "line": flaw.line, "what": flaw.what} for flaw in found.flaws]
        print_json(told | {"ok": not flaws, "flaws": flaws})
    else:
        print(f"{found.lines} lines of {len(found.chains)} writers, {found.open_ends} of them running or killed.")
    _fail_on(found.flaws, shown=not as_json)


def export(settings: Settings, more_folders: list[Path], options: ExportOptions) -> None:
    """Prints lines, and verifies the whole log while it reads it.

    Raises:
        CommandError: what was printed is not all that was written, or not as it was written.
    """
    if options.tenant is not None:
        require_tenant_name(options.tenant)
    since = _moment(options.since)
    found = _open(settings, more_folders)
    lines = lines_of(found.read(_folders(settings, more_folders)), options.tenant, since)
    for text in audit_events(lines) if options.fhir else _as_written(lines):
        sys.stdout.buffer.write(text)
    sys.stdout.flush()
    _fail_on(found.flaws, shown=True)


def _as_written(lines: Iterator[AuditLine]) -> Iterator[bytes]:
    return (line.text for line in lines)


def _folders(settings: Settings, more: list[Path]) -> list[Path]:
    return [*([settings.audit_dir] if settings.audit_dir is not None else []), *more]


def _open(settings: Settings, more: list[Path]) -> Verification:
    folders = _folders(settings, more)
    if not folders:
        raise CommandError("There is no audit log: set EYEPIECE_AUDIT_DIR, or name a folder.", ExitCode.USAGE)
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise CommandError(f"There is no folder {missing[0]}.", ExitCode.USAGE)
    return asyncio.run(verification(folders, open_store(settings)))


def _fail_on(flaws: list[Flaw], *, shown: bool) -> None:
    if not flaws:
        return
    if shown:
        for flaw in flaws[:_SHOWN_FLAWS]:
            where = f"{flaw.file}, line {flaw.line}" if flaw.line else flaw.file
            sys.stderr.write(f"{where}: {flaw.what}\n")
    raise CommandError(
        f"The audit log is not as it was written: {len(flaws)} flaws. Keep the folder and compare it with a backup.",
        ExitCode.FAILED,
    )


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError("--since is a day or a moment, e.g. 2026-11-01.", ExitCode.USAGE) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
