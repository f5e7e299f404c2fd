"""Finds the caller of a request, and whether it may do what it asks for."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request

from server.errors import InsufficientScope, Unauthorized
from server.identity.access_scopes import AccessScope
from server.identity.api_keys import KEY_BEGIN
from server.identity.caller import KEYLESS, Caller
from server.identity.credentials import Credentials
from server.settings import LOOPBACK_HOSTS, Settings

_PROXY_HEADERS = frozenset({b"forwarded", b"x-real-ip", b"via"})
_PROXY_PREFIX = b"x-forwarded-"


async def caller_of(request: Request, credentials: Credentials, settings: Settings) -> Caller:
    """Whoever the request's key or token is for; on a loopback address without one, the tenant `default`.

    Raises:
        Unauthorized: none where one is needed, or one that is not valid.
    """
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    secret = secret.strip() if scheme.lower() == "bearer" else ""
    if secret.startswith(KEY_BEGIN):
        return await credentials.keys.caller_of(secret)
    if credentials.tokens is not None and secret.count(".") == 2:
        return await credentials.tokens.caller_of(secret)
    # OpenAI clients insist on sending a key; where none is needed, any that is not one of ours is as good as none.
    reason = await _why_a_key_is_needed(request, credentials, settings)
    if reason is None:
        return KEYLESS
    if secret:
        return await credentials.keys.caller_of(secret)
    token = " or a token of your identity provider" if credentials.tokens is not None else ""
    raise Unauthorized(
        f"{reason}Send an API key{token} as `Authorization: Bearer …`; the operator makes a key with eyepiece keys "
        "create."
    )


async def _why_a_key_is_needed(request: Request, credentials: Credentials, settings: Settings) -> str | None:
    """None when this request may come without one: from this machine itself, before there is any key.

    Not from a foreign web page, a name that was rebound or a form posted from elsewhere. A proxy on this machine makes
    the whole network look like this machine; some say so, and who made a key wants it to be asked for.
    """
    if settings.require_key or not settings.listens_on_loopback:
        return ""
    origin = request.headers.get("origin")
    named_hosts = [_host(f"//{request.headers.get('host', '')}"), _host(origin) if origin else "localhost"]
    if not all(name in LOOPBACK_HOSTS for name in named_hosts):
        return ""
    if settings.keep_keyless:
        return None
    if any(name in _PROXY_HEADERS or name.startswith(_PROXY_PREFIX) for name, _ in request.scope["headers"]):
        return "Requests through a proxy need a key. "
    if credentials.tokens is not None:
        return "This server has an identity provider, so every request needs a token or a key. "
    if await credentials.keys.any_exists():
        return "This server has API keys, so every request needs one. "
    return None


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


async def note_caller(
    request: Request, credentials: Credentials, settings: Settings, scope: AccessScope | None
) -> None:
    """Find out who is asking and whether they may, before anything else of the request is looked at; a scope of None
    is for whoever has any credential.

    Raises:
        Unauthorized, InsufficientScope: they may not.
    """
    caller = await caller_of(request, credentials, settings)
    request.state.caller = caller
    request.state.tenant = caller.tenant
    if scope is not None and scope not in caller.scopes:
        detail = f"This needs the scope `{scope}`; ask the operator for a key or token that has it."
        raise InsufficientScope(detail, scope)


def _noted_tenant(request: Request) -> str:
    return str(request.state.tenant)


# For the routes of server.api.routes.keyed_route, which note it first.
Tenant = Annotated[str, Depends(_noted_tenant)]
