"""One HTTP call with its retries, for models and judges alike. What went wrong becomes a reason that is counted.

Too many requests, a server that is away and a reply that comes too late are tried again, as late as the server says; a
refusal of this one question is not. A refusal that all questions would get ends the run.
"""

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from evaluation.errors import TargetError

_WORTH_RETRYING: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_OF_ALL: Final = frozenset({401, 403, 404, 405})
_MOST_WAIT_S: Final = 120.0


@dataclass(frozen=True)
class Patience:
    """How long a reply may take, how often it is asked for, and how long is waited before the second time
    (doubling)."""

    timeout_s: float = 120.0
    attempts: int = 4
    first_wait_s: float = 1.0


@dataclass(frozen=True)
class Called:
    """The reply's JSON, or the reason why there is none: no_reply, too_late, http_429, refused …"""

    document: dict[str, Any] | None
    reason: str | None
    attempts: int


async def call(
    client: httpx.AsyncClient, url: str, body: Mapping[str, Any], patience: Patience, headers: Mapping[str, str]
) -> Called:
    """POSTs the body as JSON.

    Raises:
        TargetError: wrong key or address, which every question would meet with.
    """
    reason = "no_reply"
    for attempt in range(1, patience.attempts + 1):
        wait_s = patience.first_wait_s * 2 ** (attempt - 1)
        try:
            # Of the whole reply: httpx' own limit is of a pause, and a server that trickles would never meet it.
            async with asyncio.timeout(patience.timeout_s):
                response = await client.post(url, json=body, headers=dict(headers))
        except (TimeoutError, httpx.TimeoutException):
            reason = "too_late"
        except httpx.TransportError:
            reason = "no_reply"
        else:
            if response.is_success:
                document = _object(response)
                if document is not None:
                    return Called(document, None, attempt)
                reason = "no_json_reply"
            elif response.status_code in _OF_ALL:
                raise TargetError(
                    f"{_address(url)} refuses with status {response.status_code}: check its address, model and key."
                )
            elif response.status_code in _WORTH_RETRYING:
                reason = f"http_{response.status_code}"
                wait_s = _asked_wait_s(response) or wait_s
            else:
                return Called(None, "refused", attempt)
        if attempt < patience.attempts:
            # Half of it at random, so that questions that were refused together do not come back together.
            await asyncio.sleep(min(wait_s, _MOST_WAIT_S) * random.uniform(1.0, 1.5))  # noqa: S311 - no secret
    return Called(None, reason, patience.attempts)


def _object(response: httpx.Response) -> dict[str, Any] | None:
    try:
        document = json.loads(response.content)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _asked_wait_s(response: httpx.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None


def _address(url: str) -> str:
    parts = httpx.URL(url)
    return f"{parts.scheme}://{parts.host}{parts.path}"
