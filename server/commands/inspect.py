"""`eyepiece inspect`: what would become of a slide, without a server and before anything is encoded.

The slide is parsed in a reader process, as everywhere. The report is one document, printed for people or as JSON.
"""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from encoders.errors import MissingMpp, ReaderDied, SlideError
from encoders.tiling.isolation.reader_process import ReaderProcess
from encoders.tiling.pictures.inspection import SlideLevel
from encoders.tiling.resolution import require_possible
from encoders.types import SlideFacts, SlideWarning, TilePlan
from server.commands.inspected_levels import (
    InspectedLevels,
    InspectedSlide,
    draw_inspected,
    read_inspected_levels,
)
from server.commands.inspected_model import InspectedModel, inspected_model
from server.commands.inspection_report import print_report
from server.commands.measure_rates import EncodeRate, encode_rate, read_rate
from server.commands.outcome import CommandError, ExitCode
from server.commands.read_here import read_here
from server.commands.slide_files import require_file
from server.commands.terminal import print_json
from server.settings import Settings
from server.uploads.slide_source import LocalSource

OVERLAY_PX = 2_048


@dataclass(frozen=True)
class InspectOptions:
    """What to look at; `mpp` in µm/px replaces what the file says, `overlay` is a PNG to draw. With a file of `levels`
    it shows those, of one `region` or of all, in place of the plan."""

    path: Path
    mpp: float | None = None
    overlay: Path | None = None
    measure_encoder: bool = True
    levels: Path | None = None
    region: int | None = None


def inspect(settings: Settings, options: InspectOptions, as_json: bool) -> None:
    """Prints the report, as far as the slide allows one.

    Raises:
        CommandError: the file is missing, the overlay is no PNG, or the slide could not be encoded; in the server's
            words, after the report.
    """
    require_file(options.path)
    _require_possible(options)
    model = inspected_model(settings)
    report = _empty_report(options, model)
    with Console(stderr=True, quiet=as_json).status("looking at the slide"):
        _examine(report, settings, options, model)
    if as_json:
        print_json(report)
    else:
        print_report(report)
    if report["error"]:
        raise CommandError(report["error"]["detail"], ExitCode.FAILED, report["error"]["code"])


def _examine(report: dict[str, Any], settings: Settings, options: InspectOptions, model: InspectedModel) -> None:
    """Fills the report in the order of what the steps cost; an error of the slide ends it and is part of it."""
    cut = model.manifest.cut
    try:
        with read_here(options.path, settings) as (slide, reader):
            report |= _facts(reader, options)
            report["levels"] = [_level(level, report["mpp"]) for level in reader.levels()]
            draws_plan = options.overlay is not None and options.levels is None
            seen = reader.inspect(cut, options.mpp, OVERLAY_PX if draws_plan else None)
            report |= {"tissue_share": seen.tissue_share, "pen_share": seen.pen_share}
            overlay_png = seen.overlay_png
            if options.levels is not None:
                given = _read_levels(report, options, options.levels, slide)
                report["given"] = given.summary()
                overlay_png = draw_inspected(reader, given, OVERLAY_PX) if options.overlay else None
            if options.overlay and overlay_png:
                _write(options.overlay, overlay_png)
                report["overlay"] = str(options.overlay)
            plan = reader.plan(cut, options.mpp)
            report |= {"plan": _plan(plan), "warnings": _warnings(plan.warnings)}
            rate = read_rate(reader, plan)
    except (SlideError, ReaderDied) as error:
        report["error"] = {"code": error.code, "detail": error.detail}
        return
    encoding = (
        encode_rate(model, settings.device) if options.measure_encoder else EncodeRate(None, None, "not asked for")
    )
    report["estimate"] = _estimate(len(plan.coords), rate, encoding)


def _read_levels(report: dict[str, Any], options: InspectOptions, levels: Path, slide: LocalSource) -> InspectedLevels:
    size = report["width"], report["height"]
    inspected = InspectedSlide(options.path, slide.folder is None, *size, report["mpp"])
    return read_inspected_levels(levels, options.region, inspected)


def _empty_report(options: InspectOptions, model: InspectedModel) -> dict[str, Any]:
    cut = model.manifest.cut
    unknown = ("format", "width", "height", "mpp", "mpp_source", "objective_power", "reader", "reader_reason")
    return {
        "file": options.path.name,
        "bytes": options.path.stat().st_size,
        **dict.fromkeys(unknown),
        "levels": [],
        "warnings": [],
        "model": {"name": model.manifest.name, "target_mpp": cut.target_mpp, "tile_px": cut.tile_px},
        **dict.fromkeys(("tissue_share", "pen_share", "plan", "given", "estimate", "overlay", "error")),
    }


def _facts(reader: ReaderProcess, options: InspectOptions) -> dict[str, Any]:
    facts: SlideFacts = reader.facts()
    stated = None if facts.mpp is None else "property"
    return {
        "format": facts.vendor,
        "width": facts.width,
        "height": facts.height,
        "mpp": facts.mpp if options.mpp is None else options.mpp,
        "mpp_source": stated if options.mpp is None else "override",
        "objective_power": facts.objective_power,
        "reader": reader.kind,
        "reader_reason": reader.reason,
        "warnings": _warnings(facts.warnings),
    }


def _warnings(warnings: Iterable[SlideWarning]) -> list[dict[str, Any]]:
    return [asdict(it) for it in warnings]


def _level(level: SlideLevel, mpp: float | None) -> dict[str, Any]:
    return asdict(level) | {"mpp": None if mpp is None else mpp * level.downsample}


def _plan(plan: TilePlan) -> dict[str, Any]:
    return {
        "level": plan.level,
        "read_px": plan.read_px,
        "scale": plan.read_px / plan.tile_px,
        "reduction": plan.reduction,
        "tile_px_level0": plan.tile_px_level0,
        "tile_count": len(plan.coords),
    }


def _estimate(tile_count: int, read_tiles_per_s: float, encoding: EncodeRate) -> dict[str, Any]:
    encode_s = None if encoding.tiles_per_s is None else tile_count / encoding.tiles_per_s
    return {
        "read_s": tile_count / read_tiles_per_s,
        "read_tiles_per_s": read_tiles_per_s,
        "encode_s": encode_s,
        "encode_tiles_per_s": encoding.tiles_per_s,
        "device": encoding.device,
        "note": encoding.note,
    }


def _require_possible(options: InspectOptions) -> None:
    if options.overlay is not None and options.overlay.suffix.lower() != ".png":
        raise CommandError(f"{options.overlay} cannot be the overlay: name it like overlay.png.", ExitCode.USAGE)
    if options.region is not None and options.levels is None:
        raise CommandError("--region names one of the regions of --levels; give both.", ExitCode.USAGE)
    try:
        if options.mpp is not None:
            require_possible(options.mpp)
    except MissingMpp as error:
        raise CommandError(error.detail, ExitCode.USAGE, error.code) from None


def _write(path: Path, png: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(png)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CommandError(f"{path} cannot be written: {error.strerror}.", ExitCode.FAILED) from error
