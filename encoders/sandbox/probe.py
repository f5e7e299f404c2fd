"""Finds out which layers this machine grants to the processes that parse slides, by starting one without a slide.

It also loads the parsers, which proves that they find their libraries in there.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from encoders.sandbox.confine import confine_process
from encoders.sandbox.layers import ALL_LAYERS, FILE_LAYERS, Layer
from encoders.sandbox.shown_files import ShownFiles
from encoders.tiling.isolation.reader_channel import child_environment
from encoders.tiling.isolation.reader_limits import ReaderLimits

PROBE_COMMAND = (sys.executable, "-P", "-m", "encoders.sandbox.probe")
_PATIENCE_S = 60.0


def layers_in_force(command: Sequence[str] = PROBE_COMMAND) -> frozenset[Layer] | None:
    """What a reader of slides would have now; None when it does not even start. Takes as long as one starts."""
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE_S,
            cwd="/",
            env=child_environment(),
            check=True,
        )
        said = set(json.loads(result.stdout))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return frozenset(layer for layer in ALL_LAYERS if layer in said)


def is_confined(layers: frozenset[Layer]) -> bool:
    """Whether a slide can open no file but its own, no socket, and reach no other process."""
    return bool(layers & FILE_LAYERS) and "call_filter" in layers


def describe_layers(layers: frozenset[Layer]) -> str:
    """For `doctor` and the log: the protection in force, in words."""
    names = {"own_root": "a root of its own", "landlock": "Landlock", "call_filter": "a call filter"}
    granted = [words for layer, words in names.items() if layer in layers]
    refused = [words for layer, words in names.items() if layer not in layers]
    seen = f"{', '.join(granted) or 'nothing'} in force"
    seen += f"; not granted here: {', '.join(refused)}" if refused else ""
    if layers & FILE_LAYERS:
        return seen
    return f"{seen}; slides whose index names files elsewhere are refused, a hostile parser is not kept from any file"


def main(layers: frozenset[Layer] = ALL_LAYERS) -> None:
    """Prints the layers as JSON; tries no more than `layers`."""
    confined = confine_process(ShownFiles(Path("/none"), None, {}), ReaderLimits(), os.getppid(), layers)
    import encoders.tiling.isolation.answer_requests  # noqa: F401

    print(json.dumps(sorted(confined.layers)))


if __name__ == "__main__":
    main()
