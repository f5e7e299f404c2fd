"""Finds the tenant of a request."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request

from server.errors import Unauthorized
from server.identity.api_keys import DEFAULT_TENANT, KEY_BEGIN, KeyRing
from server.settings import LOOPBACK_HOSTS, Settings

_PROXY_HEADERS = frozenset({b"forwarded", b"x-real-ip", b"via"})
_PROXY_PREFIX = b"x-forwarded-"


async def tenant_of(request: Request, keys: KeyRing, settings: Settings) -> str:
    """The tenant of the request's key; on a loopback address without one, the tenant `default`.

    Raises:
        Unauthorized: no key where one is needed, or one that is not valid.
    """
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    secret = secret.strip() if scheme.lower() == "bearer" else ""
    if secret.startswith(KEY_BEGIN):
        return await keys.tenant_of(secret)
    # OpenAI clients insist on sending a key; where none is needed, any that is not one of ours is as good as none.
    reason = await _why_a_key_is_needed(request, keys, settings)
    if reason is None:
        return DEFAULT_TENANT
    if secret:
        return await keys.tenant_of(secret)
    raise Unauthorized(
        f"{reason}Send an API key as `Authorization: Bearer …`; the operator makes one with eyepiece keys create."
    )


async def _why_a_key_is_needed(request: Request, keys: KeyRing, settings: Settings) -> str | None:
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
    if await keys.any_exists():
        return "This server has API keys, so every request needs one. "
    return None


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


async def note_tenant(request: Request, keys: KeyRing, settings: Settings) -> None:
    """Find out who is asking, before anything else of the request is looked at; raises Unauthorized."""
    request.state.tenant = await tenant_of(request, keys, settings)


def _noted_tenant(request: Request) -> str:
    return str(request.state.tenant)


# For the routes of server.api.routes.keyed_route, which note it first.
Tenant = Annotated[str, Depends(_noted_tenant)]
