"""Telling systemd how a service of `Type=notify` is (sd_notify(3)); nothing where systemd did not start us."""

import contextlib
import os
import socket


def tell_systemd(state: str) -> None:
    """Send `state`, e.g. `READY=1`, to the socket that systemd named; a systemd that is away is no error of ours."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
