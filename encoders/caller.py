"""Whoever wants a slide encoded, as the pipeline sees it: no queue, no Redis, no torch."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from encoders.errors import EncodeCancelled
from encoders.familiarity import Familiarity
from encoders.feature_parts import NO_PARTS, FeatureParts
from encoders.types import SlideWarning, Stage

OnProgress = Callable[[Stage, int, int], None]
# Which reader opened the slide, and the word for why.
OnOpened = Callable[[str, str], None]
OnWarnings = Callable[[tuple[SlideWarning, ...]], None]
OnFamiliarity = Callable[[Familiarity], None]


def _tell_nobody(*_: object) -> None:
    """For a caller that does not want to know."""


@dataclass(frozen=True)
class Caller:
    """What the caller is told, how it says stop, and where it keeps features until the slide is encoded.

    `on_progress(stage, done, total)` is called at the start of every stage and as tiles get ready; `on_opened(reader,
    reason)` once for a slide with pixels; `on_warnings(all of them)` once its tiles are planned, with what is doubtful
    about it, often nothing; `on_familiarity` once its tiles are encoded, where the model says what it was made for.
    All are called from the encoding thread. Setting `cancelled` ends the encode at its next
    batch of tiles.
    """

    on_progress: OnProgress = _tell_nobody
    on_opened: OnOpened = _tell_nobody
    cancelled: threading.Event = field(default_factory=threading.Event)
    parts: FeatureParts = NO_PARTS
    on_warnings: OnWarnings = _tell_nobody
    on_familiarity: OnFamiliarity = _tell_nobody

    def ask(self) -> None:
        """Whether to go on; raises EncodeCancelled when not."""
        if self.cancelled.is_set():
            raise EncodeCancelled("Encoding was cancelled.")
