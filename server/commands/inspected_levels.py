"""A file of levels beside its slide, for `eyepiece inspect --levels`: whether they belong together, and the picture."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encoders.errors import StoredFileDamaged
from encoders.hierarchical.cell_kinds import CELL_KINDS
from encoders.hierarchical.levels_checks import UNKNOWN_SLIDE
from encoders.hierarchical.levels_reader import LevelsReader
from encoders.tiling.isolation.reader_process import ReaderProcess
from encoders.tiling.pictures.deep_zoom import TilePlace
from encoders.tiling.pictures.draw_levels import LevelsPicture, draw_levels
from encoders.tiling.pictures.thumbnail import as_png
from server.commands.outcome import CommandError, ExitCode
from server.commands.slide_files import require_file


@dataclass(frozen=True)
class InspectedSlide:
    """The slide that levels are to belong to; `mpp` in µm per level-0 pixel."""

    path: Path
    is_one_file: bool
    width: int
    height: int
    mpp: float | None


@dataclass(frozen=True)
class InspectedLevels:
    """What is shown of a file of levels: all regions, or one. `slide_id` is None where the file does not know it."""

    slide_id: str | None
    encoder_id: str
    region_count: int
    region: int | None
    picture: LevelsPicture

    def summary(self) -> dict[str, Any]:
        """For the report."""
        drawn, counts = self.picture, self.picture.cell_counts
        return {
            "slide_id": self.slide_id,
            "encoder_id": self.encoder_id,
            "region": self.region,
            "region_count": self.region_count,
            "region_px": drawn.region_px,
            "patches_per_region": drawn.patches.shape[1],
            "patch_px": drawn.patch_px,
            "cells": None if counts is None else dict(zip(CELL_KINDS, counts.tolist(), strict=True)),
        }


def read_inspected_levels(path: Path, region: int | None, slide: InspectedSlide) -> InspectedLevels:
    """The levels of the slide, of one `region` or of all.

    Raises:
        CommandError: the file is none of levels, is another slide's, or has no such region.
    """
    require_file(path)
    try:
        with LevelsReader(path) as levels:
            _require_same_slide(levels, slide)
            return _inspected(levels, slide.mpp, region)
    except StoredFileDamaged as error:
        raise CommandError(
            f"{path} is no file of levels, or it is damaged; download the features of a model of levels again.",
            ExitCode.FAILED,
        ) from error


def draw_inspected(reader: ReaderProcess, shown: InspectedLevels, max_px: int) -> bytes:
    """A PNG of the slide, or of the one region, at most `max_px` wide and high without the legend."""
    facts, drawn = reader.facts(), shown.picture
    left, top, right, bottom = 0, 0, facts.width, facts.height
    if shown.region is not None:
        left, top = drawn.regions[0].tolist()
        right, bottom = min(facts.width, left + drawn.region_px), min(facts.height, top + drawn.region_px)
    scale = max(1, -(-max(right - left, bottom - top) // max_px))
    first = left // scale, top // scale
    part = TilePlace(scale, *first, -(-right // scale) - first[0], -(-bottom // scale) - first[1])
    return as_png(draw_levels(reader.part(part), (first[0] * scale, first[1] * scale), scale, drawn))


def _require_same_slide(levels: LevelsReader, slide: InspectedSlide) -> None:
    stated = (levels.level0_width, levels.level0_height)
    is_other = stated != (None, None) and stated != (slide.width, slide.height)
    if not is_other and slide.is_one_file and levels.slide_id != UNKNOWN_SLIDE:
        with slide.path.open("rb") as file:
            is_other = hashlib.file_digest(file, "sha256").hexdigest() != levels.slide_id
    if is_other:
        raise CommandError(
            "The levels are another slide's; download those of this slide from the server.", ExitCode.USAGE
        )


def _inspected(levels: LevelsReader, mpp: float | None, region: int | None) -> InspectedLevels:
    count, chosen = levels.patch_coords.shape[:2]
    if region is not None and not 0 <= region < count:
        raise CommandError(f"There is no region {region}; there are {count}, from 0 to {count - 1}.", ExitCode.USAGE)
    shown = slice(0, count) if region is None else slice(region, region + 1)
    counts = None if levels.cell_counts is None else levels.cell_counts[shown].sum(axis=(0, 1))
    picture = LevelsPicture(
        regions=levels.region_coords[shown],
        numbers=range(count)[shown],
        region_px=levels.region_px,
        patches=levels.patch_coords[shown],
        patch_px=levels.patch_px,
        cells=None if counts is None else levels.cells_of(shown.start * chosen, shown.stop * chosen),
        cell_counts=counts,
        mpp=mpp,
    )
    slide_id = None if levels.slide_id == UNKNOWN_SLIDE else levels.slide_id
    return InspectedLevels(slide_id, levels.encoder_id, count, region, picture)
