"""Reasons why the fast reader must not serve a slide or a level; no errors of the slide, so not in encoders.errors."""

from encoders.tiling.slide_readers.reader_kind import ReaderReason


class NotEligible(Exception):
    """OpenSlide has to read it; `reason` goes into logs and metrics."""

    def __init__(self, reason: ReaderReason) -> None:
        super().__init__(reason)
        self.reason: ReaderReason = reason
