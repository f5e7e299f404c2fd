"""One attempt to deliver an event: to an address that was looked at, signed, without redirects, and soon over."""

import asyncio
import ssl
import time
from dataclasses import dataclass
from typing import Literal

import httpx

from server.webhooks.allowed_addresses import ForbiddenAddress, Resolve, allowed_addresses, resolve
from server.webhooks.endpoint import WebhookEndpoint
from server.webhooks.event import WebhookEvent, signed_headers

# Lookup, connection, request and the head of the answer together.
ATTEMPT_S = 10.0
# A receiver's clock may be a little off; what it says beyond a day is bounded elsewhere.
_MOST_RETRY_AFTER = 86_400
_GONE = 410

Reason = Literal["forbidden_address", "unresolvable", "unreachable", "timeout", "redirect", "status", "bad_answer"]


@dataclass(frozen=True)
class Failure:
    """Why an attempt did not deliver. `for_good` when the receiver says that it wants no more of this."""

    reason: Reason
    status: int | None = None
    retry_after_s: float = 0.0
    for_good: bool = False


class Poster:
    """Delivers to one endpoint; each attempt has a connection of its own."""

    def __init__(self, endpoint: WebhookEndpoint, look_up: Resolve = resolve) -> None:
        """Raises OSError when its certificates cannot be read."""
        self._endpoint = endpoint
        self._look_up = look_up
        own_ca = endpoint.ca_file
        trusted = ssl.create_default_context(cafile=own_ca) if own_ca else httpx.create_ssl_context(trust_env=False)
        # A proxy of the environment would connect to what it looks up itself.
        self._client = httpx.AsyncClient(
            verify=trusted,
            trust_env=False,
            follow_redirects=False,
            timeout=ATTEMPT_S,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def post(self, event: WebhookEvent) -> Failure | None:
        """Try once; None when the receiver has it, which it says with a status from 200 to 299."""
        try:
            async with asyncio.timeout(ATTEMPT_S):
                return await self._post(event)
        except ForbiddenAddress:
            return Failure("forbidden_address")
        except (TimeoutError, httpx.TimeoutException):
            return Failure("timeout")
        except (httpx.ConnectError, OSError):
            return Failure("unreachable")
        except (httpx.HTTPError, httpx.InvalidURL):
            return Failure("bad_answer")

    async def aclose(self) -> None:
        """Close what is open."""
        await self._client.aclose()

    async def _post(self, event: WebhookEvent) -> Failure | None:
        url = httpx.URL(self._endpoint.url)
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            addresses = await allowed_addresses(self._endpoint, port, self._look_up)
        except OSError:
            return Failure("unresolvable")
        headers = signed_headers(event, self._endpoint.keys, int(time.time()))
        for address in addresses[:-1]:
            try:
                return await self._post_to(url, address, headers, event)
            except httpx.ConnectError:
                continue
        return await self._post_to(url, addresses[-1], headers, event)

    async def _post_to(
        self, url: httpx.URL, address: str, headers: dict[str, str], event: WebhookEvent
    ) -> Failure | None:
        """To this very address; the name is for the receiver's certificate and its virtual hosts. Of the answer the
        head is read, whose size the HTTP library bounds, and nothing of the body."""
        request = self._client.build_request(
            "POST",
            url.copy_with(host=address),
            content=event.body.encode(),
            headers={**headers, "Host": url.netloc.decode(), "Connection": "close"},
            extensions={"sni_hostname": url.raw_host.decode()},
        )
        response = await self._client.send(request, stream=True)
        try:
            return _outcome(response)
        finally:
            await response.aclose()


def _outcome(response: httpx.Response) -> Failure | None:
    status = response.status_code
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return Failure("redirect", status)
    return Failure("status", status, _retry_after_s(response), for_good=status == _GONE)


def _retry_after_s(response: httpx.Response) -> float:
    """Zero where it names none, or a date."""
    text = response.headers.get("Retry-After", "")
    return float(min(int(text), _MOST_RETRY_AFTER)) if text.isascii() and text.isdigit() and len(text) < 10 else 0.0
