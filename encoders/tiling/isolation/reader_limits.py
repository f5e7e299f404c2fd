"""Limits on what a slide may cost, given to the child that parses it and enforced on both sides of the pipe."""

from dataclasses import dataclass, field

from encoders.tiling.isolation.decode_threads import decode_threads_here


@dataclass(frozen=True)
class ReaderLimits:
    """Limits of one reader process; every one of them ends the reader, never the worker."""

    # Address space, not resident memory: libraries and thread stacks alone reserve several hundred MB of it.
    memory_bytes: int = 4 * 2**30
    # CPU seconds over the reader's life; a 40,000-tile slide needs about 250 through OpenSlide.
    cpu_s: int = 3_600
    # The longest silence between a question and its answer, or between two batches of tiles.
    deadline_s: float = 120.0
    # Side of level 0; the largest scanners make about 300,000.
    max_dimension_px: int = 400_000
    max_levels: int = 64
    max_tiles: int = 500_000
    # Pixels that may be painted to draw a small picture of a slide that has no small level: about 60 s of OpenSlide.
    max_overview_px: int = 4_000_000_000
    # Each reserves 8 MiB of address space for its stack, and takes memory for one tile before reduction.
    decode_threads: int = field(default_factory=decode_threads_here)
    # How far the reader stands back behind the process that started it when there is too little processor for both.
    niceness: int = 0
    # Batches of decoded tiles at most: one with the parent, one ready, two being decoded.
    ring_slots: int = 4
    # Of shared memory for them, touched only as far as used: five batches of 256 tiles of 256 px.
    ring_bytes: int = 256 * 2**20
