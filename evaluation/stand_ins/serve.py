"""A small server of the OpenAI dialect on loopback, in threads, around one function."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """What a request says: the system's text, the users' texts in order, and the pictures of them all."""

    system: str
    texts: tuple[str, ...]
    pictures: tuple[bytes, ...]


class Refusal(Exception):
    """Answered with this status in place of a reply."""

    def __init__(self, status: int, retry_after_s: int | None = None) -> None:
        super().__init__(str(status))
        self.status, self.retry_after_s = status, retry_after_s


@contextmanager
def serve(answer: Callable[[Asked], str | None]) -> Iterator[str]:
    """The address, up to `/v1`, for as long as the block lasts. `answer` may raise a Refusal."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            try:
                text = answer(asked_in(body))
            except Refusal as refusal:
                self._send(refusal.status, {"error": {"message": "refused"}}, refusal.retry_after_s)
                return
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            self._send(200, {"object": "chat.completion", "model": body["model"], "choices": [choice]})

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

        def _send(self, status: int, document: dict[str, Any], retry_after_s: int | None = None) -> None:
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if retry_after_s is not None:
                self.send_header("Retry-After", str(retry_after_s))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def asked_in(body: dict[str, Any]) -> Asked:
    """Texts and pictures of a request."""
    system, texts, pictures = "", list[str](), list[bytes]()
    for message in body["messages"]:
        content = message["content"]
        for part in content if isinstance(content, list) else [{"type": "text", "text": content}]:
            if part["type"] == "image_url":
                pictures.append(base64.b64decode(part["image_url"]["url"].partition(",")[2]))
            elif message["role"] == "system":
                system += part["text"]
            else:
                texts.append(part["text"])
    return Asked(system, tuple(texts), tuple(pictures))
