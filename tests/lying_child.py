"""A child process that answers whatever a test wants, in place of one that reads a file."""

import json
import sys
from pathlib import Path
from typing import Any

# Answers each request with the next raw frame, then waits to be killed.
_LIAR = """
import os, struct, sys
for frame in {frames!r}:
    head = os.read(0, 8)
    os.read(0, struct.unpack(">II", head)[0])
    while frame:
        frame = frame[os.write(1, frame):]
os.read(0, {waits})
"""


def lying_command(folder: Path, *frames: bytes, waits: bool = True) -> list[str]:
    """Starts it; after the last frame it waits to be killed, or ends."""
    script = folder / "liar.py"  # too long for a command line
    script.write_text(_LIAR.format(frames=frames, waits=int(waits)))
    return [sys.executable, str(script)]


def frame(header: dict[str, Any] | bytes, body: bytes = b"") -> bytes:
    """A frame with this header, JSON or raw."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(4) + len(body).to_bytes(4) + raw + body
