"""Draws docs/pictures/answer.svg: a terminal in which a real answer streams, token by token, at the speed it came.

    .venv/bin/python docs/pictures/draw_answer.py SLIDE_ID "Describe this slide." > docs/pictures/answer.svg

asks the server at EYEPIECE_URL (http://127.0.0.1:8000 by default).
"""

import os
import sys
import textwrap
import time
from dataclasses import dataclass
from html import escape

from server.commands.api_client import ApiClient
from server.commands.ask import Question, answer_footer

COLUMNS, LINE_PX, CHARACTER_PX, MARGIN_PX = 64, 19, 7.8, 14
STAYS_S = 6.0  # how long the finished answer stands before the picture begins again
BLANK_S = 0.8  # how long the question stands alone where the answer came sooner


@dataclass(frozen=True)
class Piece:
    """A word in its place, and when it came, in seconds."""

    line: int
    column: int
    text: str
    came_s: float
    style: str


def asked(slide_id: str, question: str) -> list[Piece]:
    """The words of the terminal, in the order in which they came."""
    pieces = _placed(f'$ eyepiece ask {slide_id[:12]}… "{question}"', [0.0], 0, "command")
    began, text, came_s = time.monotonic(), "", list[float]()
    with ApiClient(os.environ.get("EYEPIECE_URL", "http://127.0.0.1:8000")) as client:
        for event in client.answer_events(slide_id, Question(slide_id, question).body):
            if event.name == "notice":
                came = [BLANK_S + time.monotonic() - began]
                pieces += _placed(event.data["notice"], came, pieces[-1].line + 1, "footer")
            elif event.name == "token":
                text += event.data["text"]
                came_s += [BLANK_S + time.monotonic() - began] * (len(text) - len(came_s))
            elif event.name == "done":
                done = event.data
    pieces += _placed(text, came_s, pieces[-1].line + 1, "answer")
    for line in answer_footer(done).splitlines():
        pieces += _placed(line, [came_s[-1] + 0.1], pieces[-1].line + 1, "footer")
    return pieces


def _placed(text: str, came_s: list[float], first_line: int, style: str) -> list[Piece]:
    """`came_s`: of each character, or one for all."""
    pieces, at = [], 0
    for number, line in enumerate(textwrap.wrap(text, COLUMNS) or [""]):
        column = 0
        for word in line.split(" "):
            at = text.find(word, at)
            pieces.append(Piece(first_line + number, column, word, came_s[min(at, len(came_s) - 1)], style))
            column += len(word) + 1
    return pieces


def draw(pieces: list[Piece]) -> str:
    """An SVG without scripts, which shows everything where animations are off."""
    whole_s = max(piece.came_s for piece in pieces) + STAYS_S
    width = round(COLUMNS * CHARACTER_PX + 2 * MARGIN_PX)
    height = (pieces[-1].line + 1) * LINE_PX + 2 * MARGIN_PX
    words = []
    for piece in pieces:
        x, y = MARGIN_PX + piece.column * CHARACTER_PX, MARGIN_PX + (piece.line + 0.75) * LINE_PX
        share = piece.came_s / whole_s
        appears = (
            f'<animate attributeName="opacity" values="0;1;1" keyTimes="0;{share:.4f};1" calcMode="discrete" '
            f'dur="{whole_s:.1f}s" repeatCount="indefinite"/>'
            if share
            else ""
        )
        length = len(piece.text) * CHARACTER_PX  # also where the font is another one
        place = f'x="{x:.1f}" y="{y:.1f}" textLength="{length:.1f}"'
        words.append(f'<text class="{piece.style}" {place}>{escape(piece.text)}{appears}</text>')
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">',
            "<style>text{font:13px ui-monospace,Menlo,Consolas,monospace;white-space:pre}"
            ".command{fill:#9ece6a}.answer{fill:#e6e9f0}.footer{fill:#8a93a8}</style>",
            f'<rect width="{width}" height="{height}" rx="8" fill="#1a1b26"/>',
            *words,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(draw(asked(sys.argv[1], sys.argv[2])))
