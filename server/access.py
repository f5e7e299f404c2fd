"""Who is asking: the tenant of a request."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request

from server.auth import DEFAULT_TENANT
from server.errors import Unauthorized
from server.parts import Parts
from server.settings import LOOPBACK_HOSTS


async def tenant_of(request: Request, parts: Parts) -> str:
    """The tenant of the request's key; on a loopback address without one, the tenant `default`.

    Raises:
        Unauthorized: no key where one is needed, or one that is not valid.
    """
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and secret.strip():
        return await _tenant_of_key(secret.strip(), request, parts)
    if _may_be_keyless(request, parts):
        return DEFAULT_TENANT
    raise Unauthorized(
        "Send an API key as `Authorization: Bearer …`; the operator makes one with eyepiece keys create."
    )


async def _tenant_of_key(secret: str, request: Request, parts: Parts) -> str:
    try:
        return await parts.keys.tenant_of(secret)
    except Unauthorized:
        # OpenAI clients insist on sending a key; where none is needed, any that is not one of ours is as good as none.
        if not secret.startswith("eyp_") and _may_be_keyless(request, parts):
            return DEFAULT_TENANT
        raise


def _may_be_keyless(request: Request, parts: Parts) -> bool:
    """On loopback only, and not for a foreign web page: a name that was rebound, or a form posted from elsewhere."""
    settings = parts.settings
    if settings.require_key or not settings.listens_on_loopback:
        return False
    origin = request.headers.get("origin")
    named_hosts = [_host(f"//{request.headers.get('host', '')}"), _host(origin) if origin else "localhost"]
    return all(name in LOOPBACK_HOSTS for name in named_hosts)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


async def note_tenant(request: Request, parts: Parts) -> None:
    """Find out who is asking, before anything else of the request is looked at; raises Unauthorized."""
    request.state.tenant = await tenant_of(request, parts)


def _noted_tenant(request: Request) -> str:
    return str(request.state.tenant)


# For the routes of server.routes.keyed_route, which note it first.
Tenant = Annotated[str, Depends(_noted_tenant)]
