"""Slides that nobody can encode: their reader dies or hangs each time, or the whole worker dies.

No file does that on purpose, so it is done to the process that has the slide open, whenever a worker opens it.
"""

import asyncio
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import psutil
from chaos.stack import Reader, Stack

Poison = Literal["reader dies", "reader hangs", "worker dies"]
# A look costs some milliseconds of a core; a slide takes a second or two.
_LOOK_EVERY_S = 0.05


@dataclass
class Poisoner:
    """Watches for one slide; `doses` counts how often it had to act."""

    poison: Poison
    slide_id: str
    stack: Stack
    doses: int = 0
    _given: set[int] = field(default_factory=set)

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            reader = await asyncio.to_thread(self.stack.reader_of, self.slide_id)
            if reader is not None and reader.process.pid not in self._given:
                self._given.add(reader.process.pid)
                with suppress(psutil.NoSuchProcess):  # somebody else's kill was quicker
                    self._act(reader)
                    self.doses += 1
            await asyncio.sleep(_LOOK_EVERY_S)

    def _act(self, reader: Reader) -> None:
        match self.poison:
            case "reader dies":
                reader.process.kill()
            case "reader hangs":
                reader.process.send_signal(signal.SIGSTOP)
            case "worker dies":
                reader.worker.kill()
