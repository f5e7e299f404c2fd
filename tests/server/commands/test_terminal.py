"""What goes to a terminal that does not know every character."""

import io
import json
import os
import sys

import pytest
from rich.console import Console
from rich.progress import Progress

from server.commands.terminal import accept_any_text, argument_text, print_json


def ascii_terminal(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """Standard output and error of a terminal that knows ASCII alone; what they are written as."""
    written = io.BytesIO()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(written, encoding="ascii", write_through=True))
    accept_any_text()
    return written


def test_what_ascii_lacks_is_spelled_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    written = ascii_terminal(monkeypatch)
    print("2048 × 1536 px at 0.5 µm/px · 98 tiles … “ü” 中 \udc80")
    print("µm/px", file=sys.stderr)

    assert written.getvalue().decode("ascii") == '2048 x 1536 px at 0.5 um/px - 98 tiles ... "?" ? ?\num/px\n'


def test_progress_bars_are_drawn_in_ascii_too(monkeypatch: pytest.MonkeyPatch) -> None:
    written = ascii_terminal(monkeypatch)
    console = Console(stderr=True, force_terminal=True)
    with Progress(console=console) as progress:
        progress.update(progress.add_task("Gläser", total=2), completed=1)
    with console.status("looking at the slide – µm/px"):
        pass

    assert b"50%" in written.getvalue()


def test_json_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    written = ascii_terminal(monkeypatch)
    print_json({"detail": "0.5 µm/px, \u2028"})

    assert json.loads(written.getvalue()) == {"detail": "0.5 µm/px, \u2028"}


def test_an_argument_typed_in_utf8_is_understood_in_any_locale() -> None:
    typed = "Wie groß ist µ?"

    assert argument_text(typed) == typed
    assert argument_text(os.fsencode(typed).decode("ascii", "surrogateescape")) == typed
    assert argument_text("\udcff?") == "\ufffd?"
