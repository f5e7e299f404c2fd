"""A child process that answers whatever a test wants, in place of one that reads a file."""

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

# Answers each request with the next raw frame, then waits to be killed.
_LIAR = """
import fcntl, json, mmap, os, struct, sys
for frame in {frames!r}:
    head = os.read(0, 8)
    request = json.loads(os.read(0, struct.unpack(">II", head)[0]))
    if request["ask"] == "tiles":
        memory = request["memory"]
{trick}
    while frame:
        frame = frame[os.write(1, frame):]
os.read(0, {waits})
"""


# What a child says of a slide that it has opened.
OPENED = {
    "reply": "opened",
    "vendor": "aperio",
    "width": 1024,
    "height": 1024,
    "mpp": 0.5,
    "objective_power": 20.0,
    "reader": "openslide",
    "reader_reason": "other_vendor",
    "degraded": [],
    "warnings": [],
}


def lying_command(folder: Path, *frames: bytes, waits: bool = True, trick: str = "") -> list[str]:
    """Starts it; after the last frame it waits to be killed, or ends.

    `trick` is Python that it runs before each frame from the request for tiles on: `memory` is the ring's descriptor.
    """
    script = folder / "liar.py"  # too long for a command line
    lines = textwrap.indent(
        f'if request["ask"] in ("tiles", "release"):\n{textwrap.indent(trick or "pass", "    ")}', "    "
    )
    script.write_text(_LIAR.format(frames=frames, waits=int(waits), trick=lines))
    return [sys.executable, str(script)]


def frame(header: dict[str, Any] | bytes, body: bytes = b"") -> bytes:
    """A frame with this header, JSON or raw."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(4) + len(body).to_bytes(4) + raw + body
