"""`eyepiece tenants erase`: all of a tenant, gone, and what that was in the audit log."""

import asyncio
import sys
from collections.abc import Awaitable, Callable

from server.commands.outcome import CommandError, ExitCode
from server.commands.terminal import print_json
from server.identity.api_keys import revoke_keys_of
from server.identity.audited_command import audited_command
from server.settings import Settings
from server.storage.slide_store import open_store, require_tenant_name

Note = Callable[[str], Awaitable[None]]
Erasing = Callable[[Settings, str, Note], Awaitable[dict[str, int]]]


def erase(settings: Settings, tenant: str, erasing: Erasing, *, yes: bool, as_json: bool) -> None:
    """Revokes the tenant's keys and erases what it has, after asking.

    Raises:
        CommandError: nobody said yes, or something is left.
    """
    require_tenant_name(tenant)
    if not yes:
        _ask(tenant)
    erased = asyncio.run(_erase(settings, tenant, erasing))
    if as_json:
        print_json({"tenant": tenant, **erased})
    else:
        print(", ".join(f"{name.replace('_', ' ')} {count}" for name, count in erased.items()))
    if settings.audit_dir is None:
        sys.stderr.write("There is no audit log (EYEPIECE_AUDIT_DIR), so nothing but this output tells of it.\n")
    if erased["left"]:
        sentence = "Something came meanwhile: take the tenant's tokens away at the identity provider, and erase again."
        raise CommandError(sentence, ExitCode.FAILED)


def _ask(tenant: str) -> None:
    if not sys.stdin.isatty():
        raise CommandError("Say --yes where nobody can be asked.", ExitCode.USAGE)
    if input(f"All of {tenant} is erased and cannot be had back. Type its name: ").strip() != tenant:
        raise CommandError("Nothing was erased.", ExitCode.USAGE)


async def _erase(settings: Settings, tenant: str, erasing: Erasing) -> dict[str, int]:
    store = open_store(settings)
    async with audited_command(settings.audit_dir, store, "tenants erase", tenant) as told:
        told.erased = {"keys": await revoke_keys_of(store, tenant)}
        told.erased |= await erasing(settings, tenant, told.note_slide)
        return told.erased
