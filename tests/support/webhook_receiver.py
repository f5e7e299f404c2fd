"""A receiver of webhooks on this machine that answers as a test wants, and verifies as receivers do."""

import base64
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pydantic import SecretStr
from standardwebhooks import Webhook

from server.webhooks.endpoint import WebhookEndpoint
from server.webhooks.event import WebhookEvent, slide_event

SECRET, NEXT_SECRET = ("whsec_" + base64.b64encode(letter * 32).decode() for letter in (b"a", b"b"))


class Receiver:
    """Answers with `answers` one by one, then with 204; `got` holds what it answered so, by event id and in order."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers: list[int] = []
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.got: list[str] = []
        self.goes_on = threading.Event()
        self.goes_on.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks"

    def verified(self, number: int = 0, secret: str = SECRET) -> Any:
        """The body of a request, as the reference library verifies it."""
        _, headers, body = self.asked[number]
        return Webhook(secret).verify(body, headers)


@contextmanager
def running_receiver(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """On a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.asked.append((self.path, dict(self.headers.items()), body))
            receiver.goes_on.wait(60)
            status = receiver.answers.pop(0) if receiver.answers else 204
            if 200 <= status < 300:
                receiver.got.append(self.headers["webhook-id"])
            self.send_response(status)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def do_GET(self) -> None:
            receiver.asked.append((self.path, dict(self.headers.items()), b""))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Who hangs up is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    receiver = Receiver(server.server_address[1])
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    serving.start()
    try:
        yield receiver
    finally:
        receiver.goes_on.set()
        server.shutdown()
        serving.join()
        server.server_close()


def endpoint_at(url: str, **fields: Any) -> WebhookEndpoint:
    """An endpoint of the tenant `default`."""
    said = {"name": "lis", "tenant": "default", "url": url, "secrets": (SecretStr(SECRET),)}
    return WebhookEndpoint.model_validate(said | fields)


def event_of(run: str = "1", tenant: str = "default", error_code: str | None = None) -> WebhookEvent:
    """A slide is ready, or has failed."""
    return slide_event(tenant, "5e" * 32, model="demo", encoder_id="e" * 16, run=run, error_code=error_code)
