"""Addresses that servers listen on, and how this machine reaches them."""

import errno
import socket
from ipaddress import ip_address
from typing import Any


def local_host(host: str) -> str:
    """Where this machine reaches a server that listens on `host`: an address, a host name, or one of all addresses."""
    if not host:
        return "127.0.0.1"
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def url_of(host: str, port: int | str) -> str:
    """The URL of a server of this machine that listens on `host`."""
    reached = local_host(host)
    if ":" in reached:
        reached = f"[{reached.replace('%', '%25')}]"
    return f"http://{reached}:{port}"


def bind(host: str, port: int) -> list[socket.socket]:
    """One socket for each address that `host` stands for, bound and not yet listening; port 0 takes a free one.

    An address of a family that this machine has switched off is passed over when another one works.

    Raises:
        OSError: the port is taken, this user may not have it, or the address belongs to another machine.
    """
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    unavailable: OSError | None = None
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            chosen_port = bound[0].getsockname()[1] if bound else port
            try:
                bound.append(_bound_socket(family, (address[0], chosen_port, *address[2:])))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                unavailable = error
        if not bound and unavailable is not None:
            raise unavailable
    except OSError:
        for one in bound:
            one.close()
        raise
    return bound


def _bound_socket(family: int, address: tuple[Any, ...]) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # as uvicorn has it: `::` is every IPv6 address and no other
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
    except OSError:
        one.close()
        raise
    return one
