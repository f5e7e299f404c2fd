"""A DNS server of a few lines: names have the IPv4 addresses that a test gives them, and may change."""

import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_A, _IN = 1, 1
_ANSWER, _NAME_ERROR = 0x8180, 0x8183


class NameServer(socketserver.ThreadingUDPServer):
    """Answers from `addresses`; a name without any does not exist."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.addresses: dict[str, list[str]] = {}

    @property
    def port(self) -> int:
        """UDP, on 127.0.0.1."""
        return int(self.server_address[1])


class _Handler(socketserver.BaseRequestHandler):
    server: NameServer

    def handle(self) -> None:
        query, socket = self.request
        name, question = _first_question(query)
        found = self.server.addresses.get(name, [])
        flags = _ANSWER if found else _NAME_ERROR
        header = query[:2] + struct.pack(">HHHHH", flags, 1, len(found), 0, 0)
        socket.sendto(header + question + b"".join(map(_record, found)), self.client_address)


def _first_question(query: bytes) -> tuple[str, bytes]:
    """The name that is asked for, and the question's bytes."""
    labels, position = [], 12
    while length := query[position]:
        labels.append(query[position + 1 : position + 1 + length].decode())
        position += 1 + length
    return ".".join(labels), query[12 : position + 5]


def _record(address: str) -> bytes:
    """An A record of the name in the question."""
    return struct.pack(">HHHIH", 0xC00C, _A, _IN, 1, 4) + bytes(int(part) for part in address.split("."))


@contextmanager
def name_server() -> Iterator[NameServer]:
    """Serves until the block ends."""
    with NameServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
