"""Looks into slide and features files for the API, each time in a reader process: no slide is parsed in this one."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import structlog

from encoders.dicom.instance_process import DescribedFile, InstanceProcess
from encoders.errors import UnreadableSlide
from encoders.precomputed.features_process import check_features_of_slide
from encoders.sandbox.probe import is_confined, layers_in_force
from encoders.tiling.isolation.reader_process import ReaderLimits, ReaderProcess
from encoders.types import SlideFacts, SlideWarning, TilePlan
from model_store.manifest import Manifest
from server.admission.turns import TenantTurns
from server.settings import Settings

log = structlog.get_logger(__name__)
T = TypeVar("T")

# A look is a second or two of one core, or two minutes in a hostile file; more at once only make each other slower. One
# place is always left for somebody else.
_LOOKS_AT_ONCE, _LOOKS_PER_TENANT = 3, 2
# They have threads of their own: a hostile file holds its thread until the reader's deadline, and uploads need theirs.
_THREADS = 8
# So far stand back looks of a tenant that wants several at once: answers, encodes, and the one look that somebody else
# waits for go on beside them.
_STAND_BACK = 7


def reader_limits(settings: Settings) -> ReaderLimits:
    """The limits of every process that parses a slide."""
    return ReaderLimits(
        memory_bytes=settings.reader_memory_bytes,
        cpu_s=settings.job_timeout_s,
        deadline_s=settings.reader_deadline_s,
        max_dimension_px=settings.max_slide_dimension_px,
        max_tiles=settings.max_slide_tiles,
    )


async def log_sandbox() -> None:
    """Says in the log of a process that starts which layers keep a slide's parser to its own files (SECURITY.md)."""
    layers = await asyncio.to_thread(layers_in_force)
    if layers is None:
        log.error("slide_reader_does_not_start")
    elif is_confined(layers):
        log.info("slide_sandbox", layers=sorted(layers))
    else:
        log.warning("slide_sandbox_incomplete", layers=sorted(layers))


@dataclass(frozen=True)
class FeaturesSlide:
    """The slide that features are for: what is known of it, and its files as in ReaderProcess; None when it is gone."""

    facts: SlideFacts | None
    mpp_override: float | None
    path: Path | None
    folder: Path | None = None


class SlideInspector:
    """Facts of slides and checks of features; raises the errors of `encoders.errors`."""

    def __init__(self, settings: Settings) -> None:
        self._limits = reader_limits(settings)
        self._patient_limits = replace(self._limits, niceness=_STAND_BACK)
        # Uploads are few already: none is refused when all its bytes have come.
        self._turns = TenantTurns(_LOOKS_AT_ONCE, _LOOKS_PER_TENANT, settings.max_concurrent_uploads, "looks")
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="look")

    async def facts(self, tenant: str, path: Path, folder: Path | None = None) -> SlideFacts:
        """What the file says of itself, when it is the tenant's turn; raises SlideError when it is not a slide.

        `folder` as in ReaderProcess.
        """
        async with self._turns.one(tenant) as is_only_one:
            limits = self._limits if is_only_one else self._patient_limits
            return await self._run(lambda: _facts(path, folder, limits))

    async def dicom_headers(self, tenant: str, folder: Path) -> list[DescribedFile]:
        """What the headers of all files in `folder`, which are of one slide, say, when it is the tenant's turn; raises
        SlideError when one cannot be read."""
        async with self._turns.one(tenant) as is_only_one:
            limits = self._limits if is_only_one else self._patient_limits
            return await self._run(lambda: _dicom_headers(folder, limits))

    async def check_features(
        self, tenant: str, path: Path, manifest: Manifest, slide: FeaturesSlide
    ) -> tuple[SlideWarning, ...]:
        """What is doubtful about a features file for this slide, when it is the tenant's turn; raises the error of one
        that cannot be its."""
        async with self._turns.one(tenant) as is_only_one:
            limits = self._limits if is_only_one else self._patient_limits
            return await self._run(lambda: _check_features(path, manifest, limits, slide))

    async def _run(self, look: Callable[[], T]) -> T:
        """Waits for the thread even when cancelled: its reader runs, and counts, until it ends."""
        running = asyncio.get_running_loop().run_in_executor(self._threads, look)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.gather(running, return_exceptions=True)
            raise


def _facts(path: Path, folder: Path | None, limits: ReaderLimits) -> SlideFacts:
    with ReaderProcess(path, limits, folder=folder) as reader:
        return reader.facts()


def _dicom_headers(folder: Path, limits: ReaderLimits) -> list[DescribedFile]:
    with InstanceProcess(next(folder.iterdir()), limits, folder=folder) as process:
        return list(process.described())


def _check_features(
    path: Path, manifest: Manifest, limits: ReaderLimits, slide: FeaturesSlide
) -> tuple[SlideWarning, ...]:
    def plan(mpp: float) -> TilePlan:
        if slide.path is None:
            raise UnreadableSlide("the slide's file is gone; upload the slide again.")
        with ReaderProcess(slide.path, limits, folder=slide.folder) as reader:
            known = slide.mpp_override or reader.facts().mpp
            return reader.plan(manifest.first_input.tiling, slide.mpp_override if known else mpp)

    return check_features_of_slide(path, manifest, limits, slide.facts, plan)
