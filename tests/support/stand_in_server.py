"""A small HTTP server in threads, in place of an API or a vLLM replica behind a load balancer."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_HEALTH = ("/readyz", "/readyz?for=slides", "/health", "/tokenize")


class StandIn(ThreadingHTTPServer):
    """Answers with its name; healthy, taking work and, as an API, doing everything until told otherwise.

    GET /stream sends `first`, waits until `go_on` is set, then sends `last`. GET /wait sends nothing and notes in
    `saw_hang_up` when the client goes. GET /break closes the connection after the request was read.
    """

    daemon_threads = True

    def __init__(self, name: str, address: tuple[str, int]) -> None:
        super().__init__(address, _Handler)
        self.name = name
        self.healthy = True
        self.takes_work = True
        self.does_everything = True
        self.go_on = threading.Event()
        self.saw_hang_up = threading.Event()
        self.paths: list[str] = []
        self.checks: list[str] = []

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path in _HEALTH:
            well = self.server.takes_work if self.path == "/tokenize" else self.server.healthy
            if self.path == "/readyz":
                well = well and self.server.does_everything
            self._answer(200 if well else 503)
            self.server.checks.append(self.path)
            return
        self.server.paths.append(self.path)
        match self.path:
            case "/stream":
                self._stream()
            case "/wait":
                self._wait()
            case "/break":
                self.close_connection = True
            case _:
                self._answer(200)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a test's output is its own."""

    def _wait(self) -> None:
        with contextlib.suppress(ConnectionResetError):
            self.connection.recv(1)
        self.server.saw_hang_up.set()
        self.close_connection = True

    def _answer(self, status: int) -> None:
        body = self.server.name.encode() if self.path not in _HEALTH else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body:  # a health check hangs up behind the headers
            self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for text, wait in (("first", True), ("last", False)):
            self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())
            if wait:
                self.server.go_on.wait(60)
        self.wfile.write(b"0\r\n\r\n")


@contextmanager
def stand_in(name: str, address: tuple[str, int] = ("127.0.0.1", 0)) -> Iterator[StandIn]:
    """Serves until the block ends."""
    server = StandIn(name, address)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        close_listener(server)
        server.go_on.set()
        thread.join()


def close_listener(server: StandIn) -> None:
    """As when the process is killed: nobody can connect any more. Twice is as good as once."""
    server.shutdown()
    if server.socket.fileno() != -1:
        server.socket.shutdown(socket.SHUT_RDWR)
        server.socket.close()
