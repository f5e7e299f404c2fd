"""Checks before the API listens: a taken port, and an address for others without any key."""

import asyncio

from server.commands.checks import Finding, check_port
from server.commands.outcome import CommandError, ExitCode
from server.identity.api_keys import any_key
from server.settings import Settings
from server.storage.slide_store import open_store


def refuse_open_address(settings: Settings) -> None:
    """Only this machine, or at least one key or identity provider.

    Raises:
        CommandError: the address can be reached from elsewhere and there is neither.
    """
    if settings.listens_on_loopback or bool(settings.oidc_providers) or asyncio.run(any_key(open_store(settings))):
        return
    raise CommandError(
        f"{settings.host} can be reached from other machines and no API key exists: make one with "
        f"`eyepiece keys create --tenant NAME --data-dir {settings.data_dir}`, or listen on 127.0.0.1.",
        ExitCode.USAGE,
    )


def describe_access(settings: Settings) -> str:
    """Whether clients need a key, as a clause."""
    may_be_keyless = settings.listens_on_loopback and not settings.require_key
    is_closed = bool(settings.oidc_providers) or asyncio.run(any_key(open_store(settings)))
    if may_be_keyless and (settings.keep_keyless or not is_closed):
        return "this machine needs no key"
    return "clients need an API key or a token" if settings.oidc_providers else "clients need an API key"


def refuse_taken_port(settings: Settings) -> None:
    """Nothing else listens where the API shall.

    Raises:
        CommandError: something does, or this user may not listen there.
    """
    refuse_failed(check_port(settings.host, settings.port))


def refuse_taken_worker_port(settings: Settings) -> None:
    """Nothing else listens where the worker's pages shall.

    Raises:
        CommandError: something does, or this user may not listen there.
    """
    choose = "choose other ones in EYEPIECE_WORKER_HOST and EYEPIECE_WORKER_PORT"
    refuse_failed(check_port(settings.worker_host, settings.worker_port, choose))


def refuse_failed(finding: Finding) -> None:
    """A failed check as the end of the command.

    Raises:
        CommandError: what was seen, and what to do.
    """
    if finding.state == "fail":
        seen = finding.seen[0].upper() + finding.seen[1:]
        raise CommandError(f"{seen}. {finding.remedy}", ExitCode.USAGE)
