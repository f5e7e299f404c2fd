"""Which addresses a webhook may be sent to: the host is looked up, and what may be connected to is what was looked at.

Who connects by name instead would look it up a second time, and whoever answers for that name could say something else.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence

from server.webhooks.endpoint import Network, WebhookEndpoint

# Host and port to addresses, as texts.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# IPv6 addresses that a gateway turns into the IPv4 address at their end (RFC 6052).
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# All of IPv6 that is given out for public use (RFC 4291, 2.4); the library's list of what is not has gaps.
_PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")


class ForbiddenAddress(Exception):
    """The host has none but addresses that the operator has not allowed."""


async def resolve(host: str, port: int) -> list[str]:
    """As this machine resolves names.

    Raises:
        OSError: it has no address.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(it[4][0]) for it in found))


async def allowed_addresses(endpoint: WebhookEndpoint, port: int, look_up: Resolve = resolve) -> list[str]:
    """The endpoint's addresses that may be connected to, in the resolver's order.

    Raises:
        ForbiddenAddress: it has others only.
        OSError: it has none.
    """
    found = await look_up(endpoint.host, port)
    # What is sent in the clear stays in the networks that the operator named.
    is_plain = endpoint.url.startswith("http://")
    allowed = [text for text in found if _is_allowed(text, endpoint.own_networks, own_only=is_plain)]
    if not allowed:
        raise ForbiddenAddress
    return allowed


def _is_allowed(text: str, networks: Sequence[Network], *, own_only: bool) -> bool:
    address = ipaddress.ip_address(text)
    if any(address in network for network in networks):
        return True
    return not own_only and all(_is_public(it) for it in _meanings(address))


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address not in _PUBLIC_IPV6:
        return address in _NAT64
    return address.is_global and not address.is_multicast


def _meanings(address: Address) -> Iterator[Address]:
    """An address, and the IPv4 addresses that its packets may be sent on to."""
    yield address
    if isinstance(address, ipaddress.IPv6Address):
        inside = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            inside.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        yield from (it for it in inside if it is not None)
