"""A process in place of vLLM for runs without the second environment. Its answers say which slide it was shown:

    <first 16 hex of the SHA-256 of the slide's tensor> <the same of the question>

word by word with a pause before each, so that a kill meets answers half way. Started by `chaos.up_with_stand_in`
as a component of the real supervisor: `python -m chaos.stand_in_vllm PORT`.
"""

import base64
import hashlib
import io
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from fakes import slide_parts, sse, token_chunk, usage
from numpy.typing import NDArray

_PAUSE_S = 0.05
_PIECE_CHARS = 4


def right_answer(slide_tokens: NDArray[Any], question: str) -> str:
    """What a question about these slide tokens is answered with."""
    digests = (hashlib.sha256(content).hexdigest()[:16] for content in (slide_tokens.tobytes(), question.encode()))
    return " ".join(digests)


def answer_to(body: dict[str, Any]) -> tuple[str, int]:
    """The answer to a request, and how many slide tokens it held."""
    (part,) = slide_parts(body)
    tokens = np.load(io.BytesIO(base64.b64decode(part["image_embeds"])), allow_pickle=False)
    (text,) = (piece["text"] for piece in body["messages"][-1]["content"] if piece["type"] == "text")
    return right_answer(tokens, text), len(tokens)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        text, slide_tokens = answer_to(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        pieces = [text[start : start + _PIECE_CHARS] for start in range(0, len(text), _PIECE_CHARS)]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for line in sse(*map(token_chunk, pieces), {"choices": [], "usage": usage(slide_tokens)}):
            time.sleep(_PAUSE_S)
            self.wfile.write(line)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: there may be thousands."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The API hung up in the middle of an answer; anything else is worth a traceback."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


if __name__ == "__main__":
    _Server(("127.0.0.1", int(sys.argv[1])), _Handler).serve_forever()
