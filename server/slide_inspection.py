"""Looks into slide files for the API, each time in a reader process: no slide is parsed in this one."""

import asyncio
from pathlib import Path

from encoders.tiling.isolation.reader_process import ReaderLimits, ReaderProcess
from encoders.types import SlideFacts
from server.settings import Settings

# A look is a second or two of one core; more at once only make each other slower.
_LOOKS_AT_ONCE = 2


def reader_limits(settings: Settings) -> ReaderLimits:
    """The limits of every process that parses a slide."""
    return ReaderLimits(
        memory_bytes=settings.reader_memory_bytes,
        cpu_s=settings.job_timeout_s,
        deadline_s=settings.reader_deadline_s,
        max_dimension_px=settings.max_slide_dimension_px,
        max_tiles=settings.max_slide_tiles,
    )


class SlideInspector:
    """Facts and thumbnails; raises the errors of `encoders.errors`."""

    def __init__(self, settings: Settings) -> None:
        self._limits = reader_limits(settings)
        self._slots = asyncio.Semaphore(_LOOKS_AT_ONCE)

    async def facts(self, path: Path) -> SlideFacts:
        """What the file says of itself; raises SlideError when it is not a slide."""
        async with self._slots:
            return await asyncio.to_thread(_facts, path, self._limits)

    async def thumbnail_png(self, path: Path, max_px: int) -> bytes:
        """A PNG of the tissue, at most `max_px` wide and high; never the label or the macro image."""
        async with self._slots:
            return await asyncio.to_thread(_thumbnail_png, path, self._limits, max_px)


def _facts(path: Path, limits: ReaderLimits) -> SlideFacts:
    with ReaderProcess(path, limits) as reader:
        return reader.facts()


def _thumbnail_png(path: Path, limits: ReaderLimits, max_px: int) -> bytes:
    with ReaderProcess(path, limits) as reader:
        return reader.thumbnail_png(max_px)
