"""A process in place of vLLM whose answers are written down here, by words of the question, for tests of the page.

    slowly        six hundred words, one every tenth of a second: until somebody stops it
    breaks        the connection breaks in the middle, the first time that this question comes
    markup        markup that would run a script, were it read as such
    yes or no     No.
    necrosis      Yes, and where

Anything else gets a sentence about the pattern. GET /running says how many answers are being written. Started as a
component of the real supervisor by `up_with_scripted_vllm`.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fakes import sse, token_chunk, usage

_SLIDE_TOKENS = 32
_PAUSE_S = 0.1
_ANSWERS = {
    "slowly": " ".join(f"word{number}" for number in range(1, 601)),
    "breaks": "This answer is whole now.",
    "markup": "<img src=x onerror=\"document.title='broken into'\"> is text.",
    "yes or no": "No.",
    "necrosis": "Yes, there is necrosis in the lower right quadrant.",
}
_OTHERWISE = "The growth pattern is glandular."


def answer_to(question: str) -> str:
    """What stands above."""
    return next((answer for word, answer in _ANSWERS.items() if word in question.lower()), _OTHERWISE)


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = str(len(self.server.running)).encode() if self.path == "/running" else b""
        self.send_response(200 if self.path in ("/health", "/running") else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = _last_text(body)
        self.close_connection = True
        self.server.running.add(threading.get_ident())
        try:
            self._answer(question)
        except ConnectionError:
            pass  # the API hung up, as it does when somebody stops an answer
        finally:
            self.server.running.discard(threading.get_ident())

    def _answer(self, question: str) -> None:
        words = [f"{word} " for word in answer_to(question).split(" ")]
        words[-1] = words[-1].rstrip()
        breaks_off = "breaks" in question and question not in self.server.broken
        self.server.broken.add(question)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        counts = usage(_SLIDE_TOKENS)
        lines = sse(*map(token_chunk, words), token_chunk("", finish="stop"), {"choices": [], "usage": counts})
        for number, line in enumerate(lines):
            if breaks_off and number == 2:
                return
            if "slowly" in question and number < len(words):
                time.sleep(_PAUSE_S)
            self.wfile.write(line)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a test's output is its own."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.running: set[int] = set()
        self.broken: set[str] = set()


def _last_text(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return str(next(part["text"] for part in content if part["type"] == "text"))


if __name__ == "__main__":
    _Server(int(sys.argv[1])).serve_forever()
